// XXH64 with the seed 0 (xxhash_spec.md of the xxHash project), the checksum of Zstandard's frames: the long part in
// 32-bit halves, which is twenty times as fast as BigInt, the end in BigInt.

const P1 = 0x9e3779b185ebca87n;
const P2 = 0xc2b2ae3d27d4eb4fn;
const P3 = 0x165667b19e3779f9n;
const P4 = 0x85ebca77c2b2ae63n;
const P5 = 0x27d4eb2f165667c5n;
const u64 = (value: bigint) => BigInt.asUintN(64, value);
const turned = (value: bigint, by: bigint) => u64((value << by) | (u64(value) >> (64n - by)));
const mixed = (word: bigint) => u64(turned(word * P2, 31n) * P1);
const [low1, high1, low2, high2] = [P1, P1 >> 32n, P2, P2 >> 32n].map((half) =>
  Number(half & 0xffffffffn),
) as [number, number, number, number];

/** The upper half of a product of two unsigned 32-bit numbers. */
function upper(a: number, b: number): number {
  const [a1, b1] = [a >>> 16, b >>> 16];
  const first = a1 * (b & 0xffff) + (Math.imul(a & 0xffff, b & 0xffff) >>> 16);
  const second = (a & 0xffff) * b1 + (first & 0xffff);
  return a1 * b1 + (first >>> 16) + (second >>> 16);
}

/** A hash of bytes that come piece by piece. */
export function xxh64() {
  // Four lanes of 8 bytes, each its lower half and its upper one.
  const lanes = new Int32Array(BigUint64Array.of(u64(P1 + P2), P2, 0n, u64(-P1)).buffer);
  let rest = new Uint8Array();
  let length = 0;
  return {
    update(bytes: Uint8Array): void {
      length += bytes.length;
      const all = rest.length > 0 ? Buffer.concat([rest, bytes]) : bytes;
      const words = new DataView(all.buffer, all.byteOffset, all.length);
      const end = all.length & ~31;
      for (let at = 0; at < end; at += 8) {
        const lane = (at >> 2) & 6;
        const [low, high] = [words.getInt32(at, true), words.getInt32(at + 4, true)];
        const product = Math.imul(low, low2) >>> 0;
        const carried = upper(low, low2) + Math.imul(low, high2) + Math.imul(high, low2);
        const sum = (lanes[lane]! >>> 0) + product;
        const top = (lanes[lane + 1]! + carried + (sum > 0xffffffff ? 1 : 0)) | 0;
        const [left, right] = [(sum << 31) | (top >>> 1), (top << 31) | ((sum | 0) >>> 1)];
        lanes[lane] = Math.imul(left, low1);
        lanes[lane + 1] = upper(left, low1) + Math.imul(left, high1) + Math.imul(right, low1);
      }
      rest = all.slice(end);
    },
    digest(): bigint {
      const [a = 0n, b = 0n, c = 0n, d = 0n] = new BigUint64Array(lanes.buffer);
      let hash = P5;
      if (length >= 32) {
        hash = turned(a, 1n) + turned(b, 7n) + turned(c, 12n) + turned(d, 18n);
        for (const lane of [a, b, c, d]) hash = u64((hash ^ mixed(lane)) * P1 + P4);
      }
      hash += BigInt(length);
      const end = Buffer.from(rest);
      let at = 0;
      for (; at + 8 <= end.length; at += 8)
        hash = u64(turned(u64(hash) ^ mixed(end.readBigUInt64LE(at)), 27n) * P1 + P4);
      for (; at + 4 <= end.length; at += 4)
        hash = u64(turned(u64(hash) ^ u64(BigInt(end.readUInt32LE(at)) * P1), 23n) * P2 + P3);
      for (; at < end.length; at++)
        hash = u64(turned(u64(hash) ^ u64(BigInt(end[at]!) * P5), 11n) * P1);
      hash = u64(hash);
      hash = u64((hash ^ (hash >> 33n)) * P2);
      hash = u64((hash ^ (hash >> 29n)) * P3);
      return hash ^ (hash >> 32n);
    },
  };
}
