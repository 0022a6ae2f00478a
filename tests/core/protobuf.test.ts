// Messages as protobuf's documentation writes them, and integers of every length as 64-bit arithmetic has them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { encode, encodePieces } from "../../src/core/protobuf.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/** Seven bits at a time, the lowest first; a negative number is what 64 bits hold of it. */
function varint(value: number): number[] {
  const groups = [];
  for (let rest = BigInt.asUintN(64, BigInt(value)); rest >= 128n; rest >>= 7n)
    groups.push(Number(rest & 127n) | 128);
  const bits = BigInt.asUintN(64, BigInt(value)) >> BigInt(7 * groups.length);
  return [...groups, Number(bits)];
}

test("the messages of protobuf's documentation", () => {
  assert.equal(hex(encode({ 1: 150 })), "089601");
  assert.equal(hex(encode({ 2: "testing" })), "120774657374696e67");
  assert.equal(hex(encode({ 3: { 1: 150 } })), "1a03089601");
  assert.equal(hex(encode({ 4: "hello", 5: [1, 2, 3] })), "220568656c6c6f280128022803");
  assert.equal(
    hex(encode({ 1: Float32Array.of(1), 2: Float64Array.of(1) })),
    ["0d0000803f", "11000000000000f03f"].join(""),
  );
  assert.equal(hex(encode({ 1: "", 2: {}, 3: [] })), "0a001200");
});

test("integers of every length, negative ones among them", () => {
  const values = [0, 1, -1, -(2 ** 53) + 1, 2 ** 53 - 1];
  for (let bits = 7; bits < 53; bits++)
    for (const value of [2 ** bits - 1, 2 ** bits, 2 ** bits + 1]) values.push(value, -value);
  for (const value of values)
    assert.deepEqual([...encode({ 1: value })], [8, ...varint(value)], String(value));
});

test("fields by their numbers, and a late part between what is before and behind it", () => {
  const late = { byteLength: 300, stream: async function* () {} };
  const long = "x".repeat(200_000);
  const pieces = encodePieces({ 16: { 1: late, 2: long }, 17: 1 });
  assert.equal(pieces.length, 3);
  const [before, part, behind] = pieces as [Uint8Array, typeof late, Uint8Array];
  assert.equal(part, late);
  // The length of field 16: tag and length of the late part and of the text, and both.
  const length = 3 + 300 + 4 + long.length;
  assert.deepEqual([...before], [...varint(16 * 8 + 2), ...varint(length), 10, ...varint(300)]);
  const text = Buffer.from(long);
  const expected = [Buffer.from([18, ...varint(long.length)]), text, Buffer.from([136, 1, 1])];
  assert.equal(hex(behind), hex(Buffer.concat(expected)));
});
