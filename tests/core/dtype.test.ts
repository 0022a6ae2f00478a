// Half-precision conversions over all of their 65,536 values, against definitions in float64 arithmetic.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  decodeFloats,
  encodeFloats,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  toInt64,
} from "../../src/core/dtype.ts";

interface Format {
  readonly name: "F16" | "BF16";
  readonly exponentBits: number;
  readonly fractionBits: number;
  readonly decode: (bits: number) => number;
  readonly encode: (value: number) => number;
}

const bf16ToF32 = (bits: number) =>
  decodeFloats("BF16", new Uint8Array(Uint16Array.of(bits).buffer))![0]!;

const formats: readonly Format[] = [
  { name: "F16", exponentBits: 5, fractionBits: 10, decode: f16ToF32, encode: f32ToF16 },
  { name: "BF16", exponentBits: 8, fractionBits: 7, decode: bf16ToF32, encode: f32ToBf16 },
];

/** IEEE 754: the value of a bit pattern, by the definition. */
function valueOf({ exponentBits, fractionBits }: Format, bits: number): number {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1)
    return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent
    ? sign * (1 + fraction) * 2 ** (exponent - bias)
    : sign * fraction * 2 ** (1 - bias);
}

for (const format of formats) {
  const { name, decode, encode } = format;
  const all = Array.from({ length: 2 ** 16 }, (_, bits) => bits);
  const infinity = all.find((bits) => valueOf(format, bits) === Number.POSITIVE_INFINITY)!;
  // Rising magnitudes, infinity last; the next step after the largest number stands for infinity in roundings.
  const magnitudes = all.slice(0, infinity + 1);

  test(`${name}: every bit pattern has the value of the definition`, () => {
    for (const bits of all) assert.ok(Object.is(decode(bits), valueOf(format, bits)), `${bits}`);
  });

  test(`${name}: every number survives the way there and back, NaN stays NaN`, () => {
    for (const bits of all) {
      const back = encode(decode(bits));
      if (Number.isNaN(decode(bits))) assert.ok(Number.isNaN(decode(back)), `${bits}`);
      else assert.equal(back, bits);
    }
  });

  test(`${name}: between two neighbours, rounds to the nearest, ties to even`, () => {
    const step = decode(infinity - 1) - decode(infinity - 2);
    for (const bits of magnitudes.slice(0, -1)) {
      const low = decode(bits);
      const high = bits + 1 === infinity ? low + step : decode(bits + 1);
      const middle = low + (high - low) / 2;
      const float = new Float32Array([middle]);
      if (float[0] !== middle) continue; // below float32's own subnormals
      const view = new Uint32Array(float.buffer);
      const even = bits % 2 === 0 ? bits : bits + 1;
      assert.equal(encode(middle), even, `tie at ${middle}`);
      assert.equal(encode(-middle), even | 0x8000, `tie at ${-middle}`);
      view[0]! -= 1;
      assert.equal(encode(float[0]), bits, `just below ${middle}`);
      view[0]! += 2;
      assert.equal(encode(float[0]), bits + 1, `just above ${middle}`);
    }
  });

  test(`${name}: infinities, overflow, signed zeros and NaN`, () => {
    assert.equal(encode(Number.POSITIVE_INFINITY), infinity);
    assert.equal(encode(Number.NEGATIVE_INFINITY), infinity | 0x8000);
    assert.equal(encode(3.4028234663852886e38), infinity);
    assert.equal(encode(0), 0);
    assert.equal(encode(-0), 0x8000);
    assert.ok(Number.isNaN(decode(encode(Number.NaN))));
  });
}

test("bytes of every floating-point dtype decode at any alignment, also out of a Buffer's pool", () => {
  const values = new Float32Array([0, -0, 1.5, -2.25, 65504, Number.POSITIVE_INFINITY]);
  const encoded = {
    F64: new Uint8Array(Float64Array.from(values).buffer),
    F32: encodeFloats("F32", values),
    F16: encodeFloats("F16", values),
    BF16: encodeFloats(
      "BF16",
      values.map((value) => (value === 65504 ? 65536 : value)),
    ),
  };
  for (const [dtype, bytes] of Object.entries(encoded)) {
    const expected = dtype === "BF16" ? values.map((v) => (v === 65504 ? 65536 : v)) : values;
    const shifted = new Uint8Array(bytes.length + 3);
    shifted.set(bytes, 3);
    for (const given of [bytes, shifted.subarray(3), Buffer.from(bytes)]) {
      assert.deepEqual(decodeFloats(dtype as keyof typeof encoded, given), expected);
    }
  }
  assert.equal(decodeFloats("I64", new Uint8Array(8)), undefined);
});

test("integers of 32 bits keep their value and sign in 64", () => {
  const values = Int32Array.of(0, 1, -1, 50256, 2 ** 31 - 1, -(2 ** 31));
  assert.deepEqual(toInt64(values), BigInt64Array.from(values, BigInt));
});
