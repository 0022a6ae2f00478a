// Protobuf's wire format (https://protobuf.dev/programming-guides/encoding), as far as ONNX and TensorBoard need it.

/** The values of a message by their fields' numbers. */
export interface Message {
  readonly [field: number]: Value;
}

/** An integer, text, bytes, one float or double, a message, or any number of values of a repeated field. */
type Value =
  | (number | string | Uint8Array | Message | readonly Value[])
  | (Float32Array | Float64Array);

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
const lengthOf = (parts: readonly Uint8Array[]) =>
  parts.reduce((sum, { byteLength }) => sum + byteLength, 0);

const partsOf = (message: Message): Uint8Array[] =>
  Object.entries(message).flatMap(([field, value]) => encodeField(Number(field), value as Value));

function encodeField(number: number, value: Value): Uint8Array[] {
  if (isList(value)) return value.flatMap((item) => encodeField(number, item));
  const tag = (wireType: number) => varint((number << 3) | wireType);
  if (typeof value === "number") return [tag(0), varint(value)];
  if (value instanceof Float32Array) return [tag(5), new Uint8Array(value.buffer)];
  if (value instanceof Float64Array) return [tag(1), new Uint8Array(value.buffer)];
  const ofBytes = typeof value === "string" ? utf8.encode(value) : value;
  const parts = ofBytes instanceof Uint8Array ? [ofBytes] : partsOf(ofBytes);
  return [tag(2), varint(lengthOf(parts)), ...parts];
}

/** The bytes of a top-level message. */
export function encode(message: Message): Uint8Array {
  const parts = partsOf(message);
  const result = new Uint8Array(lengthOf(parts));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.byteLength;
  }
  return result;
}
