// Protobuf's wire format (https://protobuf.dev/programming-guides/encoding), as far as ONNX and TensorBoard need it.

import { invariant } from "./errors.ts";

/** The values of a message by their fields' numbers. */
export interface Message {
  readonly [field: number]: Value;
}

/** Bytes that are read when they are written, so that a message may be larger than memory. */
export interface LateBytes {
  readonly byteLength: number;
  readonly stream: () => AsyncIterable<Uint8Array>;
}

/** An integer, text, bytes, one float or double, a message, or any number of values of a repeated field. */
type Value =
  | (number | string | Uint8Array | LateBytes | Message | readonly Value[])
  | (Float32Array | Float64Array);
type Part = Uint8Array | LateBytes;

const utf8 = new TextEncoder();

function varint(value: number): Uint8Array {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest ? low | 0x80 : low);
  } while (rest);
  return Uint8Array.from(bytes);
}

const isList = (value: Value): value is readonly Value[] => Array.isArray(value);
const isBytes = (value: object): value is Part =>
  value instanceof Uint8Array || typeof Reflect.get(value, "stream") === "function";
const lengthOf = (parts: readonly Part[]) =>
  parts.reduce((sum, { byteLength }) => sum + byteLength, 0);

const partsOf = (message: Message): Part[] =>
  Object.entries(message).flatMap(([field, value]) => encodeField(Number(field), value as Value));

function encodeField(number: number, value: Value): Part[] {
  if (isList(value)) return value.flatMap((item) => encodeField(number, item));
  const tag = (wireType: number) => varint((number << 3) | wireType);
  if (typeof value === "number") return [tag(0), varint(value)];
  if (value instanceof Float32Array) return [tag(5), new Uint8Array(value.buffer)];
  if (value instanceof Float64Array) return [tag(1), new Uint8Array(value.buffer)];
  const ofBytes = typeof value === "string" ? utf8.encode(value) : value;
  const parts = isBytes(ofBytes) ? [ofBytes] : partsOf(ofBytes);
  return [tag(2), varint(lengthOf(parts)), ...parts];
}

/** The bytes of a top-level message in order, each late part by itself. */
export function encodePieces(message: Message): Part[] {
  const pieces: Part[] = [];
  let small: Uint8Array[] = [];
  for (const part of [...partsOf(message), undefined]) {
    if (part instanceof Uint8Array) small.push(part);
    else {
      pieces.push(joined(small), ...(part ? [part] : []));
      small = [];
    }
  }
  return pieces;
}

/** The bytes of a top-level message without late parts. */
export function encode(message: Message): Uint8Array {
  const [whole, ...late] = encodePieces(message);
  invariant(whole instanceof Uint8Array && late.length === 0, "a message with late parts");
  return whole;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const result = new Uint8Array(lengthOf(parts));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.byteLength;
  }
  return result;
}
