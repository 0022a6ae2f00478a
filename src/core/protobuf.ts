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

/** Bytes that grow from their end to their start, so that a message's length is known where it is written. */
class Writer {
  /** What stands behind the bytes, last part first. */
  readonly #behind: Part[] = [];
  #bytes = new Uint8Array(2 ** 16);
  #start = this.#bytes.length;
  #lengthBehind = 0;

  get length(): number {
    return this.#bytes.length - this.#start + this.#lengthBehind;
  }

  /** Of negative numbers all 64 bits. */
  varint(value: number): void {
    let groups = value < 0 ? 10 : 1;
    for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) groups++;
    const from = this.#room(groups);
    let rest = value;
    for (let i = 0; i < groups; i++, rest = Math.floor(rest / 128))
      this.#bytes[from + i] = (rest & 127) | 128;
    this.#bytes[from + groups - 1]! &= value < 0 ? 1 : 127;
  }

  part(part: Part): void {
    if (part instanceof Uint8Array) {
      const from = this.#room(part.length);
      this.#bytes.set(part, from);
      return;
    }
    this.#lengthBehind = this.length + part.byteLength;
    this.#behind.push(this.#bytes.subarray(this.#start), part);
    this.#bytes = new Uint8Array(2 ** 10);
    this.#start = this.#bytes.length;
  }

  /** In order, bytes and late parts by turns. */
  pieces(): Part[] {
    return [...this.#behind, this.#bytes.subarray(this.#start)].reverse();
  }

  /** Where so many bytes before the others begin. */
  #room(length: number): number {
    if (length > this.#start) {
      const larger = new Uint8Array(2 * this.#bytes.length + length);
      const moved = larger.length - this.#bytes.length;
      larger.set(this.#bytes.subarray(this.#start), moved + this.#start);
      [this.#bytes, this.#start] = [larger, moved + this.#start];
    }
    return (this.#start -= length);
  }
}

const isList = (value: Value): value is readonly Value[] => Array.isArray(value);
const isPart = (value: object): value is Part =>
  value instanceof Uint8Array || typeof Reflect.get(value, "stream") === "function";

function writeMessage(to: Writer, message: Message): void {
  for (const [field, value] of Object.entries(message).reverse())
    writeField(to, Number(field), value as Value);
}

function writeField(to: Writer, field: number, value: Value): void {
  if (isList(value)) {
    for (let i = value.length - 1; i >= 0; i--) writeField(to, field, value[i]!);
    return;
  }
  const end = to.length;
  let wireType = 2;
  if (typeof value === "number") {
    wireType = 0;
    to.varint(value);
  } else if (value instanceof Float32Array || value instanceof Float64Array) {
    wireType = value instanceof Float32Array ? 5 : 1;
    to.part(new Uint8Array(value.buffer));
  } else if (typeof value === "string") to.part(utf8.encode(value));
  else if (isPart(value)) to.part(value);
  else writeMessage(to, value);
  if (wireType === 2) to.varint(to.length - end);
  to.varint((field << 3) | wireType);
}

/** The bytes of a top-level message in order, each late part by itself. */
export function encodePieces(message: Message): Part[] {
  const writer = new Writer();
  writeMessage(writer, message);
  return writer.pieces();
}

/** The bytes of a top-level message without late parts. */
export function encode(message: Message): Uint8Array {
  const [whole, ...late] = encodePieces(message);
  invariant(whole instanceof Uint8Array && late.length === 0, "a message with late parts");
  return whole;
}
