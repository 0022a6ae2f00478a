// LZ4 frames, as Arrow compresses its buffers (lz4_Frame_format.md and lz4_Block_format.md of the LZ4 project). Blocks
// may refer to what earlier ones gave, so all go into one output. Checksums are passed over: Arrow writes none.

export function decompressLz4(frame: Uint8Array): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getUint32(0, true) !== 0x184d2204) throw new Error("its LZ4 has another form");
  const flags = frame[4]!;
  const [hasBlockChecksum, hasSize, hasDictionary] = [0x10, 0x08, 0x01].map((bit) => flags & bit);
  let at = 7 + (hasSize ? 8 : 0) + (hasDictionary ? 4 : 0);
  let output = new Uint8Array(4 * frame.length);
  let length = 0;
  const reserve = (more: number) => {
    if (length + more <= output.length) return;
    const larger = new Uint8Array(2 * (length + more));
    larger.set(output.subarray(0, length));
    output = larger;
  };
  const literals = (from: number, count: number) => {
    if (from + count > frame.length) throw new RangeError("literals behind the end");
    reserve(count);
    output.set(frame.subarray(from, from + count), length);
    length += count;
  };
  /** A length of 15 goes on in further bytes, the last of which is no 255. */
  const longer = (first: number) => {
    let total = first;
    for (let byte = first === 15 ? 255 : 0; byte === 255; total += byte) byte = view.getUint8(at++);
    return total;
  };
  for (;;) {
    const word = view.getUint32(at, true);
    at += 4;
    if (word === 0) return output.subarray(0, length);
    // The highest bit: not compressed.
    const end = at + (word & 0x7fff_ffff);
    if (word >>> 31) literals(at, end - at);
    else
      while (at < end) {
        const token = view.getUint8(at++);
        const count = longer(token >> 4);
        literals(at, count);
        at += count;
        if (at >= end) break; // the last sequence has no match
        const distance = view.getUint16(at, true);
        at += 2;
        const matched = longer(token & 15) + 4;
        if (distance === 0 || distance > length) throw new RangeError("a match before the start");
        reserve(matched);
        // Byte by byte: a match may reach into itself.
        for (let i = 0; i < matched; i++, length++) output[length] = output[length - distance]!;
      }
    at = end + (hasBlockChecksum ? 4 : 0);
  }
}
