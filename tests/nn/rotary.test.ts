// Rotary embedding: the frequencies of each scaling against its published formula, the rotation against complex numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { openEngine } from "../../src/engines/index.ts";
import { input, integers } from "../../src/graph/build.ts";
import { configReader } from "../../src/models/config.ts";
import { readModel } from "../../src/models/index.ts";
import { readRotary } from "../../src/models/settings.ts";
import { fixedPositions, givenPositions } from "../../src/nn/positions.ts";
import { frequencies, rotation, type RotaryConfig, steadyLength } from "../../src/nn/rotary.ts";
import { allClose } from "../helpers.ts";

const plain = (rotaryDim: number, theta: number): RotaryConfig => ({
  rotaryDim,
  theta,
  scaling: { type: "none" },
});

test("unscaled: theta to the -2i / d", () => {
  allClose(frequencies(plain(4, 10_000)), [1, 0.01], { rtol: 1e-15 });
  assert.equal(frequencies(plain(64, 10_000)).length, 32);
});

test("linear: all divided by the factor", () => {
  const scaling = { type: "linear", factor: 4 } as const;
  const scaled = frequencies({ ...plain(4, 10_000), scaling });
  allClose(scaled, [0.25, 0.0025], { rtol: 1e-15 });
});

test("llama3: short wavelengths kept, long ones divided, blended between (Llama 3.1 8B)", () => {
  const [factor, low, high, context] = [8, 1, 4, 8192];
  const scaled = frequencies({
    ...plain(128, 500_000),
    scaling: {
      type: "llama3",
      factor,
      lowFrequencyFactor: low,
      highFrequencyFactor: high,
      originalMaxPositions: context,
    },
  });
  // As Hugging Face states it, by wavelength.
  const bands = { kept: 0, blended: 0, divided: 0 };
  const expected = frequencies(plain(128, 500_000)).map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength < context / high) return (bands.kept++, frequency);
    if (wavelength > context / low) return (bands.divided++, frequency / factor);
    bands.blended++;
    const smooth = (context / wavelength - low) / (high - low);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  });
  allClose(scaled, expected, { rtol: 1e-12 });
  assert.deepEqual(bands, { kept: 29, blended: 6, divided: 29 });
});

test("YaRN: fast pairs kept, slow ones divided, blended between by their index", () => {
  const [factor, original, width, theta] = [4, 32_768, 128, 1_000_000]; // Qwen 2.5
  const scaling = { factor, fastTurns: 32, slowTurns: 1, originalMaxPositions: original, gain: 1 };
  const whole = {
    ...plain(width, theta),
    scaling: { type: "yarn", ...scaling },
  };
  const scaled = frequencies(whole as RotaryConfig);
  // The index at which a pair makes r turns in the original length solves original · theta^(-2i / width) = 2π r.
  const indexAt = (turns: number) => {
    let [low, high] = [0, width];
    for (let step = 0; step < 60; step++) {
      const middle = (low + high) / 2;
      const made = (original * theta ** ((-2 * middle) / width)) / (2 * Math.PI);
      [low, high] = made > turns ? [middle, high] : [low, middle];
    }
    return low;
  };
  const [first, last] = [Math.floor(indexAt(32)), Math.ceil(indexAt(1))];
  assert.deepEqual([first, last], [23, 40]);
  const expected = frequencies(plain(width, theta)).map((frequency, i) => {
    const slow = i <= first ? 0 : i >= last ? 1 : (i - first) / (last - first);
    return frequency * (1 - slow) + (frequency / factor) * slow;
  });
  allClose(scaled, expected, { rtol: 1e-12 });
});

test("LongRoPE: a divisor for each pair, others in windows beyond the original length", () => {
  const scaling = {
    type: "longrope",
    short: [1, 2],
    long: [4, 5],
    originalMaxPositions: 8,
    gain: 1.5,
  } as const;
  const config = { ...plain(4, 10_000), scaling };
  for (const length of [1, 8]) allClose(frequencies(config, length), [1, 0.005], { rtol: 1e-15 });
  allClose(frequencies(config, 9), [0.25, 0.002], { rtol: 1e-15 });
  assert.equal(steadyLength(config), 8);
  assert.equal(steadyLength(plain(4, 10_000)), Infinity);
});

test("beyond the original length positions turn as the config says, by the formulas as published", async (t) => {
  const [theta, width, original, factor, length] = [10_000, 16, 64, 4, 200];
  const pairs = [...Array(width / 2).keys()];
  const base = pairs.map((i) => theta ** ((-2 * i) / width));
  const ramp = (x: number) => Math.min(1, Math.max(0, x));
  const pairOf = (turns: number) =>
    (width * Math.log(original / (2 * Math.PI * turns))) / (2 * Math.log(theta));
  const [long, short] = [pairs.map((i) => 1.5 + i), pairs.map(() => 1)];
  const scaled: Readonly<Record<string, readonly [object, number, readonly number[]]>> = {
    linear: [{}, 1, base.map((f) => f / factor)],
    llama3: [
      { low_freq_factor: 1, high_freq_factor: 4 },
      1,
      base.map((f) => {
        const smooth = ramp(((original * f) / (2 * Math.PI) - 1) / 3);
        return (smooth + (1 - smooth) / factor) * f;
      }),
    ],
    yarn: [
      {},
      0.1 * Math.log(factor) + 1,
      base.map((f, i) => {
        const [first, last] = [Math.max(0, Math.floor(pairOf(32))), Math.ceil(pairOf(1))];
        const slow = ramp((i - first) / (last - first));
        return f * (1 - slow + slow / factor);
      }),
    ],
    longrope: [
      { long_factor: long, short_factor: short },
      Math.sqrt(1 + Math.log(factor) / Math.log(original)),
      base.map((f, i) => f / long[i]!),
    ],
  };
  const engine = await openEngine("cpu", { threads: 1 });
  t.after(() => engine.dispose());
  const x = input("x", [1, 1, length, width], "F32");
  const values = Float32Array.from({ length: length * width }, (_, i) => Math.sin(i));
  for (const [type, [more, gain, turns]] of Object.entries(scaled)) {
    const json = {
      model_type: "llama",
      hidden_size: width,
      intermediate_size: 8,
      num_attention_heads: 1,
      num_hidden_layers: 1,
      vocab_size: 8,
      rms_norm_eps: 1e-5,
      max_position_embeddings: factor * original,
      rope_theta: theta,
      rope_scaling: {
        rope_type: type,
        factor,
        ...(type !== "linear" && { original_max_position_embeddings: original }),
        ...more,
      },
    };
    const { config } = readModel("config.json", json);
    const rotary = readRotary(configReader("config.json", json), config);
    const y = rotation(rotary, fixedPositions(length))(x);
    const program = await engine.compile({ y }, new Map());
    const turned = (await program.run({ x: values }))["y"]!;
    for (const at of [original, length - 1])
      for (const pair of pairs) {
        const [re, im] = [pair, pair + width / 2].map((i) => values[at * width + i]!);
        const angle = at * turns[pair]!;
        const expected = gain * (re! * Math.cos(angle) - im! * Math.sin(angle));
        allClose([turned[at * width + pair]!], [expected], { atol: 3e-6 });
      }
    await program.dispose();
  }
});

test("the halves of a head turn as complex numbers, and what is beyond rotaryDim stays", async () => {
  const [batch, heads, length, headDim, rotaryDim] = [2, 3, 5, 8, 6];
  const config = plain(rotaryDim, 100);
  const x = input("x", [batch, heads, length, headDim], "F32");
  const offset = 3;
  const ids = integers(
    [...Array(batch * length).keys()].map((i) => (i % length) + offset),
    [batch, length],
  );
  const outputs = {
    fromZero: rotation(config, fixedPositions(length))(x),
    fromThree: rotation(
      config,
      givenPositions(ids, () => x, length + offset),
    )(x),
  };
  const engine = await openEngine("cpu", { threads: 1 });
  const program = await engine.compile(outputs, new Map());
  const random = createRandom(5);
  const values = Float32Array.from({ length: batch * heads * length * headDim }, () =>
    random.normal(),
  );
  const results = await program.run({ x: values });

  const angles = frequencies(config);
  const turned = (first: number) =>
    values.map((_, i) => {
      const [column, position] = [i % headDim, (Math.floor(i / headDim) % length) + first];
      if (column >= rotaryDim) return values[i]!;
      const pair = column % (rotaryDim / 2);
      const row = i - column;
      const [re, im] = [values[row + pair]!, values[row + pair + rotaryDim / 2]!];
      const angle = position * angles[pair]!;
      return column < rotaryDim / 2
        ? re * Math.cos(angle) - im * Math.sin(angle)
        : re * Math.sin(angle) + im * Math.cos(angle);
    });
  allClose(results["fromZero"]!, turned(0), { atol: 1e-6 });
  allClose(results["fromThree"]!, turned(offset), { atol: 1e-6 });
  await engine.dispose();
});
