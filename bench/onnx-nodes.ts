// The nodes of an ONNX model's bytes.

/** ModelProto.graph is field 7, GraphProto.node field 1. */
export function numNodes(model: Uint8Array): number {
  let count = 0;
  for (const [field, graph] of fields(model))
    if (field === 7) for (const [inner] of fields(graph)) if (inner === 1) count++;
  return count;
}

/** The fields of a message by number, with their bytes where they have a length. */
function* fields(message: Uint8Array): Generator<[number, Uint8Array]> {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = message[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const length = tag % 8 === 2 ? varint() : undefined;
    if (length === undefined) varint();
    yield [tag >> 3, message.subarray(at, at + (length ?? 0))];
    at += length ?? 0;
  }
}
