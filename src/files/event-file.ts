// Event files as TensorBoard reads them: https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto
// in TFRecord's framing, each record in the hands of the system once its promise resolves.

import { appendFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { pid } from "node:process";
import { encode, type Message } from "../core/protobuf.ts";
import { failing, makeFolder } from "./atomic.ts";

/** Castagnoli's polynomial, reversed. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = (byte >>> 1) ^ (byte & 1 ? 0x82f63b78 : 0);
  return byte;
});

/** CRC-32C (RFC 3720). */
export function crc32c(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 255]!;
  return ~crc >>> 0;
}

/** Rotated and shifted, so that records in records do not fool it. */
const masked = (crc: number) => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;

/** A record: its length, and itself, each with its checksum. */
export function framed(data: Uint8Array): Uint8Array {
  const record = Buffer.alloc(data.length + 16);
  record.writeBigUInt64LE(BigInt(data.length));
  record.writeUInt32LE(masked(crc32c(record.subarray(0, 8))), 8);
  record.set(data, 12);
  record.writeUInt32LE(masked(crc32c(data)), data.length + 12);
  return record;
}

type Scalars = Readonly<Record<string, number>>;

/** An event with the time in seconds: Summary.Value is {tag: 1, simple_value: 2}. */
export const scalarEvent = (time: number, step: number, scalars: Scalars) => {
  const values = Object.entries(scalars).map(([tag, value]): Message => {
    return { 1: tag, 2: Float32Array.of(value) };
  });
  return encode({ 1: Float64Array.of(time), 2: step, 5: { 1: values } });
};

/**
 * Begins a file of its own in a folder, for what comes after a step (-1: from the start): readers drop what earlier files
 * say of later steps, as a run does that goes on from its last checkpoint. Returns what adds to it.
 */
export async function openEventFile(folder: string, after: number) {
  const now = () => Date.now() / 1000;
  // Readers take files in the order of their names, which the time leads.
  const name = `events.out.tfevents.${now().toFixed(3)}.${hostname()}.${pid}`;
  const path = join(folder, name);
  const append = (...events: Uint8Array[]) =>
    appendFile(path, Buffer.concat(events.map(framed))).catch(failing(path));
  await makeFolder(folder).catch(failing(folder));
  const at = { 1: Float64Array.of(now()), 2: after + 1 };
  await append(encode({ ...at, 3: "brain.Event:2" }), encode({ ...at, 7: { 1: 1 } })); // SessionLog.START
  return (step: number, scalars: Scalars) => append(scalarEvent(now(), step, scalars));
}
