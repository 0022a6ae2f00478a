// The JSON header of a safetensors file, whoever reads or writes it where: text to checked tensor ranges, each way of being
// malformed with its own sentence, and back. Rules: https://github.com/huggingface/safetensors#format and its reference reader.

import { DTYPE_BYTES, type Dtype } from "../core/dtype.ts";
import { invariant, messageOf, UserError } from "../core/errors.ts";
import { isRecord, shown } from "../core/json.ts";
import { sizeOf } from "../core/shape.ts";

/** The longest header that the format allows, in bytes. */
const maxHeaderBytes = 100_000_000;

export interface TensorInfo {
  readonly name: string;
  /** Name of the number format as in the file; may be one that can be listed but not read, such as F8_E4M3. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** The real file, symbolic links resolved. */
  readonly file: string;
  /** Bytes from the start of the file; a multiple of nothing in particular. */
  readonly offset: number;
  readonly byteLength: number;
}

// Number formats that are listed and no more.
const listedDtypes: readonly string[] =
  "F4 F6_E2M3 F6_E3M2 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ U16 U32 U64 C64".split(" ");

/** Whether weights of this dtype can be read; the others are only listed. */
export const isReadableDtype = (dtype: string): dtype is Dtype => Object.hasOwn(DTYPE_BYTES, dtype);

type Fail = (problem: string) => never;

/** The length that the first 8 bytes announce; `fileBytes` is the size of the whole file. */
export function headerLength(file: string, prefix: Uint8Array, fileBytes: number): number {
  if (prefix.length < 8)
    throw malformed(file, `it is ${fileBytes} bytes long, too short for the 8-byte header length`);
  if (String.fromCharCode(...prefix.subarray(0, 8)) === "version ")
    throw new UserError(`${file} is a Git LFS pointer, not the weights themselves`, {
      hint: "run `git lfs pull` in its repository",
    });
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  const is = `its header would be ${length} bytes long`;
  if (length > BigInt(maxHeaderBytes)) throw malformed(file, `${is}, over the limit of 100 MB`);
  if (8n + length > BigInt(fileBytes))
    throw malformed(file, `${is}, but only ${fileBytes - 8} follow`);
  return Number(length);
}

/** Parses and checks a header; `dataBytes` is the number of bytes that follow it in the file. In the order of these. */
export function parseHeader(file: string, header: Uint8Array, dataBytes: number) {
  const fail: Fail = (problem) => {
    throw malformed(file, problem);
  };
  if (header[0] !== 0x7b) fail("its header does not start with {");
  const json = parseUniqueJson(header, (problem) => fail(`its header ${problem}`));
  if (!isRecord(json)) return fail("its header is not a JSON object");
  const { ["__metadata__"]: metadata = {}, ...tensors } = json;
  if (!isRecord(metadata)) return fail("__metadata__ is not an object of strings");
  const strange = Object.entries(metadata).find(([, value]) => typeof value !== "string");
  if (strange) fail(`__metadata__ value ${shown(strange[0])} is not a string`);
  const entries = Object.entries(tensors).map(([name, entry]) => {
    const failed: Fail = (problem) => fail(`tensor ${shown(name)}: ${problem}`);
    return { name, ...parseEntry(entry, dataBytes, failed) };
  });
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  // Every byte of the data must belong to exactly one tensor.
  let [covered, previous] = [0, ""];
  for (const { name, begin, end } of entries) {
    if (begin < covered) fail(`tensors ${shown(previous)} and ${shown(name)} overlap`);
    if (begin > covered)
      fail(`bytes ${covered} to ${begin} before tensor ${shown(name)} belong to no tensor`);
    [covered, previous] = [end, name];
  }
  if (covered < dataBytes)
    fail(`${dataBytes - covered} bytes after the last tensor belong to no tensor`);
  const infos = entries.map(({ begin, end, ...entry }): TensorInfo => {
    return { ...entry, file, offset: 8 + header.length + begin, byteLength: end - begin };
  });
  return { tensors: infos, metadata: metadata as Record<string, string> };
}

/** Parses UTF-8 JSON in which no object holds a key twice; `fail` throws the caller's error. */
export function parseUniqueJson(bytes: Uint8Array, fail: Fail): unknown {
  let [text, json]: [string | undefined, unknown] = [undefined, undefined];
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    json = JSON.parse(text);
  } catch (error) {
    fail(text === undefined ? "is not UTF-8" : `is not JSON (${messageOf(error)})`);
  }
  const twice = duplicateKey(text);
  return twice === undefined ? json : fail(`holds the key ${shown(twice)} twice`);
}

/**
 * A key that one object of this valid JSON text holds twice, if there is one. JSON.parse silently keeps the last, so
 * that two programs could read two different tensors. Linear in the length of the text.
 */
export function duplicateKey(json: string): string | undefined {
  const scopes: Set<string>[] = [];
  let start = -1; // of the string that is being read
  // A quote with the colon that makes a string a key; where it opens a string, the colon is a part of that.
  for (const { 0: token, 1: colon, index } of json.matchAll(/\\.|"([ \t\n\r]*:)?|[{}]/g)) {
    if (token.startsWith('"')) {
      if (start >= 0 && colon) {
        const key = JSON.parse(json.slice(start, index + 1)) as string;
        if (scopes.at(-1)?.has(key)) return key;
        scopes.at(-1)?.add(key);
      }
      start = start < 0 ? index : -1;
    } else if (start < 0 && token === "{") scopes.push(new Set());
    else if (start < 0) scopes.pop();
  }
  return undefined;
}

/** `begin` and `end` are byte offsets from the end of the header. */
function parseEntry(entry: unknown, dataBytes: number, fail: Fail) {
  if (!isRecord(entry)) return fail("its entry is not an object");
  const { dtype, shape, data_offsets: offsets } = entry;
  const isKnown = typeof dtype === "string" && isReadableDtype(dtype);
  if (typeof dtype !== "string" || !(isKnown || listedDtypes.includes(dtype)))
    return fail(`unknown dtype ${shown(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isCount))
    return fail(`shape ${shown(shape)} is not a list of non-negative whole numbers`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    return fail(`data_offsets ${shown(offsets)} are not two non-negative whole numbers`);
  const [begin, end] = offsets as [number, number];
  if (end < begin) return fail(`it ends (${end}) before it begins (${begin})`);
  if (end > dataBytes)
    return fail(`it ends at byte ${end} of the data, which is ${dataBytes} bytes long`);
  // The first number in a format's name is its size. What is no exact number on the way stays NaN.
  let bits = isKnown ? 8 * DTYPE_BYTES[dtype] : Number(/\d+/.exec(dtype));
  for (const dim of shape) bits = Number.isSafeInteger(bits * dim) ? bits * dim : Number.NaN;
  if (Number.isNaN(bits)) return fail(`shape ${shown(shape)} is too large`);
  if (bits / 8 !== end - begin)
    return fail(`${dtype} ${shown(shape)} takes ${bits / 8} bytes, but has ${end - begin}`);
  return { dtype, shape, begin, end };
}

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && ((value as number) > 0 || Object.is(value, 0));

function malformed(file: string, problem: string): UserError {
  return new UserError(`${file} is not a valid safetensors file: ${problem}`, {
    hint: "is the file complete? compare its size with the source's, or fetch it again",
  });
}

/** A tensor to be written. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Little-endian values, row-major: all of them, or a function that yields them piece by piece. */
  data: Uint8Array | (() => AsyncIterable<Uint8Array>);
}

export type Metadata = Readonly<Record<string, string>> | null;

/** Large number formats first, then by name. */
export const inFileOrder = (tensors: readonly TensorSource[]) =>
  [...tensors].sort(
    (a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (a.name < b.name ? -1 : 1),
  );

export function headerBytes(tensors: readonly TensorSource[], metadata: Metadata): Uint8Array {
  // Joined by hand: an object would move names that look like numbers to the front.
  const members = metadata ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  const names = new Set(["__metadata__"]);
  let offset = 0;
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    invariant(!names.has(name), `two tensors are named "${name}"`);
    names.add(name);
    const offsets = [offset, (offset += byteSize(tensor))];
    const entry = JSON.stringify({ dtype, shape, data_offsets: offsets });
    members.push(`${JSON.stringify(name)}:${entry}`);
  }
  const json = new TextEncoder().encode(`{${members.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  invariant(length <= maxHeaderBytes, `a header of ${length} bytes is over the format's limit`);
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}

export function byteSize({ name, dtype, shape }: TensorSource): number {
  const isShape = shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0);
  invariant(isShape, `"${name}" has shape [${shape.join(", ")}]`);
  return sizeOf(shape) * DTYPE_BYTES[dtype];
}
