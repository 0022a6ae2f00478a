// Messages as bytes: what is large in them stays where it is and follows in pieces, so that nobody copies or waits for a
// whole model at once. In the message an array leaves its kind and its size.

import { DefaultDeserializer, DefaultSerializer } from "node:v8";
import type { Deserializer, Serializer } from "node:v8";
import { invariant } from "../../core/errors.ts";

/** Arrays of more bytes come after the message. */
const LARGE = 2 ** 16;

const kinds = [Uint8Array, Float32Array, BigInt64Array] as const;

// Node calls these methods for arrays, as its documentation says and its types do not.
type Writing = new () => Serializer & { _writeHostObject(array: ArrayBufferView): void };
type Reading = new (bytes: Uint8Array) => Deserializer & { _readHostObject(): ArrayBufferView };

class Writer extends (DefaultSerializer as Writing) {
  readonly large: Uint8Array[] = [];
  override _writeHostObject(array: ArrayBufferView) {
    const kind = kinds.findIndex((kind) => array instanceof kind);
    invariant(kind >= 0, "an array of a kind that no message has");
    this.writeUint32(kind);
    this.writeDouble(array.byteLength);
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    if (bytes.length > LARGE) this.large.push(bytes);
    else this.writeRawBytes(bytes);
  }
}

class Reader extends (DefaultDeserializer as Reading) {
  readonly large: Uint8Array[] = [];
  override _readHostObject() {
    const [kind, length] = [kinds[this.readUint32()]!, this.readDouble()];
    // Memory that is not set to zero first.
    const bytes = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
    if (length > LARGE) this.large.push(bytes);
    else bytes.set(this.readRawBytes(length));
    return new kind(bytes.buffer);
  }
}

/** The message without its large arrays, and these. */
export function packed(message: unknown) {
  const writer = new Writer();
  writer.writeHeader();
  writer.writeValue(message);
  return { bytes: writer.releaseBuffer(), large: writer.large };
}

/** The message, with large arrays that are still to be filled. */
export function unpacked(bytes: Uint8Array) {
  const reader = new Reader(bytes);
  reader.readHeader();
  return { message: reader.readValue() as unknown, large: reader.large };
}
