// A writer for the protobuf wire format (https://protobuf.dev/programming-guides/encoding), as far as ONNX needs it.

/** One encoded field; a message is a list of them. */
export type Field = readonly Uint8Array[];

const utf8 = new TextEncoder();

function varint(value: number | bigint): Uint8Array {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest ? low | 0x80 : low);
  } while (rest);
  return Uint8Array.from(bytes);
}

const tag = (field: number, wireType: number) => varint((field << 3) | wireType);

export const int = (field: number, value: number | bigint): Field => [tag(field, 0), varint(value)];

export function float(field: number, value: number): Field {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return [tag(field, 5), bytes];
}

export const bytes = (field: number, value: Uint8Array): Field => [
  tag(field, 2),
  varint(value.byteLength),
  value,
];
export const text = (field: number, value: string): Field => bytes(field, utf8.encode(value));

export function message(field: number, fields: readonly Field[]): Field {
  const parts = fields.flat();
  const length = parts.reduce((sum, part) => sum + part.byteLength, 0);
  return [tag(field, 2), varint(length), ...parts];
}

/** The bytes of a top-level message. */
export function encode(fields: readonly Field[]): Uint8Array {
  const parts = fields.flat();
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.byteLength;
  }
  return result;
}
