// The TensorFlow.js engine beyond its numbers: memory, weights in files, limits, and which backend it takes.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { encodeFloats } from "../../src/core/dtype.ts";
import { createRandom } from "../../src/core/random.ts";
import { sizeOf } from "../../src/core/shape.ts";
import { UserError } from "../../src/core/errors.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { loadTfjs, restoreUtil } from "../../src/engines/tfjs/backend.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import * as g from "../../src/graph/build.ts";
import { leaves, type Tensor } from "../../src/graph/tensor.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { modelCase } from "./model-case.ts";

let engine: Engine;
before(async () => (engine = await openEngine("tfjs:cpu", { threads: 1 })));
after(() => engine.dispose());

test("1,000 training steps leave no tensor behind, and disposal none at all", async () => {
  const before = tf.memory().numTensors;
  const x = g.input("x", [2, 3], "F32");
  const y = g.softmax(g.matMul(g.gelu(x, "tanh"), g.parameter("w", [4, 3]), { transposeB: true }));
  const [dx] = gradients(g.tanh(y), [x]);
  const weights = new Map([["w", encodeFloats("F32", new Float32Array(12).fill(0.5))]]);
  const program = await engine.compile({ y, dx: dx! }, weights);
  const resident = tf.memory().numTensors;
  assert.ok(resident > before);
  for (let step = 0; step < 1000; step++) await program.run({ x: new Float32Array(6).fill(step) });
  assert.equal(tf.memory().numTensors, resident);
  await program.dispose();
  assert.equal(tf.memory().numTensors, before);
});

test("nor do steps of a whole model", async () => {
  const { outputs, weights, feeds } = await modelCase("llama", (name) => name.includes(".ssa."));
  const program = await engine.compile(outputs, weights);
  const resident = tf.memory().numTensors;
  for (let step = 0; step < 10; step++) await program.run(feeds);
  assert.equal(tf.memory().numTensors, resident);
  await program.dispose();
});

test("a run that fails releases what it had computed", async () => {
  const x = g.input("x", [2], "F32");
  const y = g.add(g.exp(x), g.input("missing", [2], "F32"));
  const program = await engine.compile({ y }, new Map());
  const before = tf.memory().numTensors;
  await assert.rejects(program.run({ x: Float32Array.of(1, 2) }), /no input missing/);
  assert.equal(tf.memory().numTensors, before);
  await program.dispose();
});

test("values are released after their last use, not at the end", async () => {
  let y: Tensor = g.input("x", [1000], "F32");
  for (let i = 0; i < 50; i++) y = g.tanh(y);
  const program = await engine.compile({ y }, new Map());
  const before = tf.memory().numBytes;
  const { peakBytes } = await tf.profile(async () => {
    await program.run({ x: new Float32Array(1000) });
    return [];
  });
  assert.ok(peakBytes - before <= 3 * 4000, `${peakBytes - before} bytes at once`);
  await program.dispose();
});

test("weights lie in files in any precision, at any offset", async (t) => {
  const file = join(await temporaryFolder(t), "weights");
  const values = Float32Array.of(-2, 0.5, 3);
  const parts = (["F32", "F16", "BF16"] as const).map((dtype) => encodeFloats(dtype, values));
  const bytes = Buffer.concat([
    Buffer.of(7),
    ...parts,
    new Uint8Array(Float64Array.from(values).buffer),
  ]);
  await writeFile(file, bytes);
  let offset = 1;
  const weights = new Map(
    (["F32", "F16", "BF16", "F64"] as const).map((dtype, i) => {
      const byteLength = parts[i]?.byteLength ?? 24;
      const weight = { file, offset, byteLength };
      offset += byteLength;
      return [dtype, weight];
    }),
  );
  const outputs = Object.fromEntries(
    [...weights.keys()].map((dtype) => [
      `y ${dtype}`,
      g.cast(g.parameter(dtype, [3], dtype as "F32"), "F32"),
    ]),
  );
  const program = await engine.compile(outputs, weights);
  for (const result of Object.values(await program.run({}))) assert.deepEqual(result, values);
  await program.dispose();
});

test("half precision within a graph is refused", async () => {
  const half = g.cast(g.input("x", [2], "F32"), "F16");
  await assert.rejects(engine.compile({ y: g.cast(half, "F32") }, new Map()), {
    name: "UserError",
    message: "tfjs:cpu computes in F32 alone, the graph has F16",
  });
});

test("integers must fit in 32 bits", async () => {
  const ids = g.input("ids", [1], "I64");
  const program = await engine.compile({ y: g.cast(ids, "F32") }, new Map());
  const largest = 2n ** 31n - 1n;
  const { y } = await program.run({ ids: BigInt64Array.of(largest) });
  assert.deepEqual(y, Float32Array.of(Number(largest)));
  await assert.rejects(
    program.run({ ids: BigInt64Array.of(largest + 1n) }),
    /2147483648 does not fit/,
  );
  await program.dispose();
});

test("two backends side by side, and runs in turn", async () => {
  const wasm = await openEngine("tfjs:wasm", { threads: 1 });
  const x = g.input("x", [2, 2], "F32");
  const outputs = { y: g.matMul(x, g.softmax(x), { transposeB: true }) };
  const programs = [
    await engine.compile(outputs, new Map()),
    await wasm.compile(outputs, new Map()),
  ];
  const runs = [1, 2, 3].flatMap((value) =>
    programs.map(
      async (program) => (await program.run({ x: Float32Array.of(value, 0, 0, value) }))["y"]!,
    ),
  );
  const results = await Promise.all(runs);
  for (let i = 0; i < results.length; i += 2)
    allClose(results[i + 1]!, results[i]!, { atol: 1e-6 });
  assert.notDeepEqual(results[0], results[2]);
  await wasm.dispose();
});

test("large products take another path on wasm, to the same numbers", async () => {
  const wasm = await openEngine("tfjs:wasm", { threads: 1 });
  const outputs: Record<string, Tensor> = {};
  for (const batch of [[], [3]])
    for (const transposeA of [false, true])
      for (const transposeB of [false, true]) {
        const name = `${batch.length} ${transposeA} ${transposeB}`;
        const a = g.input(`a ${name}`, [...batch, ...(transposeA ? [80, 70] : [70, 80])], "F32");
        const b = g.input(`b ${name}`, [...batch, ...(transposeB ? [90, 80] : [80, 90])], "F32");
        outputs[`y ${name}`] = g.matMul(a, b, { transposeA, transposeB, alpha: 0.5 });
      }
  const random = createRandom(23);
  const feeds = Object.fromEntries(
    [...leaves(outputs, "Input")].map(([name, { shape }]) => [
      name,
      Float32Array.from({ length: sizeOf(shape) }, () => random.normal()),
    ]),
  );
  const [expected, actual] = await Promise.all(
    [engine, wasm].map(async (each) => (await each.compile(outputs, new Map())).run(feeds)),
  );
  for (const name of Object.keys(outputs))
    allClose(actual![name]!, expected![name]!, { atol: 1e-4 });
  await wasm.dispose();
});

test("timers tick between runs", async () => {
  const program = await engine.compile({ y: g.exp(g.input("x", [1], "F32")) }, new Map());
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const end = Date.now() + 50;
  while (Date.now() < end) await program.run({ x: Float32Array.of(1) });
  clearInterval(timer);
  assert.ok(ticks > 5, `${ticks} ticks`);
  await program.dispose();
});

test("without a named backend, the fastest that works, and why not the others", async () => {
  const any = await openEngine("tfjs", { threads: 1 });
  assert.match(any.description, /^tfjs:(gpu|wasm) \(TensorFlow\.js 4\.22\.0\)/);
  if (any.description.startsWith("tfjs:wasm")) assert.match(any.description, /; tfjs:gpu: /);
  await any.dispose();
});

/** A package that pretends to have a GPU or not. */
const nativePackage = (isUsingGpuDevice: boolean) => async () => ({
  enableProdMode: () => undefined,
  setBackend: async (name: string) => name === "tensorflow",
  backend: () => ({ isUsingGpuDevice }),
});
const failing = (code: string, message: string) => async (name: string) => {
  throw Object.assign(new Error(`${message} '${name}'`), { code });
};

test("a GPU that TensorFlow would replace by the CPU is an error", async () => {
  const { name } = await loadTfjs("gpu", nativePackage(true));
  assert.equal(name, "tensorflow");
  await assert.rejects(loadTfjs("gpu", nativePackage(false)), (error: unknown) => {
    assert.ok(error instanceof UserError);
    assert.match(error.message, /finds no usable GPU and would compute on the CPU/);
    assert.match(error.hint!, /CUDA 11\.2 and cuDNN 8\.1/);
    return true;
  });
});

test("a package that is missing or broken is an error that says what to install", async () => {
  const missing = loadTfjs("gpu", failing("ERR_MODULE_NOT_FOUND", "Cannot find package"));
  await assert.rejects(missing, {
    message: "tfjs:gpu: @tensorflow/tfjs-node-gpu is not installed",
    hint: /^npm install @tensorflow\/tfjs-node-gpu@4\.22\.0 \(.*CUDA 11\.2/,
  });
  const broken = loadTfjs("wasm", failing("ERR_DLOPEN_FAILED", "libcudart.so.11.0: cannot open"));
  await assert.rejects(broken, { message: /tfjs-core cannot be loaded: libcudart\.so\.11\.0/ });
});

test("functions that Node 23 dropped are put back, others stay", () => {
  const util: Record<string, unknown> = { isArray: "own" };
  restoreUtil(util);
  const isNullOrUndefined = util["isNullOrUndefined"] as (value: unknown) => boolean;
  assert.deepEqual([null, undefined, 0, ""].map(isNullOrUndefined), [true, true, false, false]);
  assert.equal(util["isArray"], "own");
});

test("an unknown device is refused with the known ones", async () => {
  await assert.rejects(openEngine("tpu", { threads: 1 }), {
    message: 'device "tpu" is not known',
    hint: /tfjs:wasm/,
  });
});
