// Quantised bases: codes as NumPy has them, numbers as those of the dequantised model in F32, and a cache that can be trusted.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFile, mkdir, readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { openWithTemperatures, randomIds, writeRandomModel } from "../../bench/models.ts";
import { f16ToF32 } from "../../src/core/dtype.ts";
import { UserError } from "../../src/core/errors.ts";
import {
  openSafetensors,
  readBytes,
  readFloats,
  writeSafetensors,
  writeSharded,
} from "../../src/files/safetensors.ts";
import type { TensorSource } from "../../src/files/safetensors.ts";
import {
  describeQuantization,
  isBlocked,
  partsOf,
  type Quantization,
  toBlocks,
} from "../../src/model/blocks.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { withBlocks } from "../../src/model/quantize.ts";
import { openTrainingStep } from "../../src/train/step.ts";
import { ssa } from "../cli/program.ts";
import { fixtures } from "../fixtures/variants.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { asOnCuda, byParts, cpu, tfjs } from "./engines.ts";
import { gpt2, llama } from "./tiny-geometries.ts";

type Quantized = readonly ({ bits: 4 | 8; block: number } & Record<
  "codes" | "factors" | "zeros",
  number[]
>)[];

test("codes, factors and zero points are NumPy's", async () => {
  const path = join(fixtures, "blocks", "expected.json");
  const { matrix, quantized, skewed, withZeros } = JSON.parse(await readFile(path, "utf8")) as {
    matrix: number[];
    quantized: Quantized;
    skewed: number[];
    withZeros: Quantized;
  };
  assert.deepEqual([quantized.length, withZeros.length], [4, 4]);
  const values = Float32Array.from(skewed);
  for (const { bits, block, codes, factors, zeros } of withZeros) {
    const made = toBlocks(values, bits, block, "", true);
    assert.deepEqual(codesOf(made.codes, bits), codes);
    assert.deepEqual([...made.factors], factors);
    assert.deepEqual([...made.zeros], zeros);
    // Of what is not around zero, blocks with zero points lose less than those without.
    const squares = ({ codes, factors, zeros }: ReturnType<typeof toBlocks>) =>
      codesOf(codes, bits).reduce((sum, code, i) => {
        const at = Math.floor(i / block);
        return sum + ((code - zeros[at]!) * f16ToF32(factors[at]!) - values[i]!) ** 2;
      }, 0);
    const skewedRows = 3 * 128;
    const both = [true, false].map((has) =>
      toBlocks(values.slice(0, skewedRows), bits, block, "", has),
    );
    const [less, more] = both.map((of) => Math.sqrt(squares(of)));
    assert.ok(less! < 0.75 * more!, `${less} < ${more}`);
  }
  for (const { bits, block, codes, factors } of quantized) {
    const made = toBlocks(Float32Array.from(matrix), bits, block);
    assert.deepEqual(codesOf(made.codes, bits), codes);
    assert.deepEqual([...made.factors], factors);
  }
});

test("what no block can hold is refused by the tensor's name", () => {
  for (const value of [Number.NaN, Infinity, 1e8])
    assert.throws(() => toBlocks(new Float32Array(32).fill(value), 8, 32, "w"), /tensor "w" holds/);
});

const codesOf = (bytes: Uint8Array, bits: 4 | 8) =>
  [...bytes].flatMap((byte) =>
    bits === 8 ? [(byte << 24) >> 24] : [(byte << 28) >> 28, (byte << 24) >> 28],
  );

const window = { batchSize: 2, context: 24 };
const specs: readonly Quantization[] = [
  { bits: 4, block: 32, head: false },
  { bits: 8, block: 64, head: true },
  // Of Llama, rows of 160 have an odd number of blocks.
  { bits: 4, block: 32, head: false, zeroPoints: true },
  { bits: 8, block: 64, head: true, zeroPoints: true },
];

async function writeTiny(t: TestContext, config: object = llama) {
  const folder = await temporaryFolder(t);
  await writeRandomModel(folder, { ...config, vocab_size: 301 }, "BF16");
  return folder;
}

async function step(engine: typeof cpu, opened: OpenedModel) {
  const names = [...opened.temperatures!.values.keys()];
  const training = await openTrainingStep(engine, opened, window, names, { recompute: "blocks" });
  const ids = randomIds(window.batchSize * window.context, 301);
  const batch = { ids, labels: ids.toReversed(), numTargets: ids.length };
  const { nats, gradients } = await training.run(
    batch,
    Object.fromEntries(opened.temperatures!.values),
  );
  const copies = new Map([...gradients].map(([name, values]) => [name, values.slice()]));
  await training.dispose();
  return { nats, gradients: copies };
}

/** The same model with its blocks multiplied out, in F32. */
async function multipliedOut(t: TestContext, from: string, { quantized }: OpenedModel) {
  const folder = await temporaryFolder(t);
  const tensors: TensorSource[] = [];
  for (const [name, info] of quantized!.weights) {
    let values: Float32Array;
    if (isBlocked(info)) {
      const [codes, factors, shift] = await Promise.all(partsOf(info).map(readBytes));
      const halves = new Uint16Array(factors!.buffer);
      const integers = codesOf(codes!, info.bits);
      const zeros = info.shift === "zeroPoints" ? codesOf(shift!, info.bits) : [];
      const biases = info.shift === "biases" ? new Float32Array(shift!.buffer) : [];
      values = Float32Array.from(integers, (code, i) => {
        const at = Math.floor(i / info.block);
        return (code - (zeros[at] ?? 0)) * f16ToF32(halves[at]!) + (biases[at] ?? 0);
      });
    } else values = await readFloats(info);
    const data = new Uint8Array(values.buffer);
    tensors.push({ name, dtype: "F32", shape: info.shape, data });
  }
  await copyFile(join(from, "config.json"), join(folder, "config.json"));
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
  return openWithTemperatures(folder);
}

for (const config of [gpt2, llama])
  for (const spec of specs)
    test(`${config.model_type}, ${describeQuantization(spec)}: loss and gradients are those of the model multiplied out`, async (t) => {
      const folder = await writeTiny(t, config);
      const places = { cacheDir: await temporaryFolder(t) };
      const opened = await withBlocks(await openWithTemperatures(folder), spec, places);
      const blocks = [...opened.quantized!.weights.values()].filter(isBlocked);
      // Of Llama, rows of 160 values are no whole blocks of 64.
      const numMatrices = config === gpt2 ? 8 : 14 - (spec.block === 64 ? 2 : 0);
      const numEmbeddings = config === gpt2 ? 1 : 2;
      assert.equal(blocks.length, numMatrices + (spec.head ? numEmbeddings : 0));
      const expected = await step(cpu, await multipliedOut(t, folder, opened));
      for (const [engine, rtol] of [
        [cpu, 1e-6],
        [byParts, 1e-6],
        [asOnCuda, 1e-6],
        [tfjs, 1e-5],
      ] as const) {
        const actual = await step(engine, opened);
        allClose([actual.nats], [expected.nats], { rtol });
        for (const [name, gradient] of expected.gradients)
          allClose(actual.gradients.get(name)!, gradient, { atol: 1e-5, rtol: 1e-5 });
      }
    });

test("a whole file, shards and the cache give one result", async (t) => {
  const folder = await writeTiny(t);
  const shards = await temporaryFolder(t);
  await copyFile(join(folder, "config.json"), join(shards, "config.json"));
  const { tensors } = await openSafetensors(folder);
  const sources: TensorSource[] = [];
  for (const info of tensors.values())
    sources.push({ ...info, dtype: "BF16", data: await readBytes(info) });
  await writeSharded(shards, sources, { maxShardBytes: 60_000 });
  const cacheDir = await temporaryFolder(t);
  const notes: string[] = [];
  const open = async (from: string) =>
    withBlocks(await openWithTemperatures(from), specs[0]!, {
      cacheDir,
      onNote: (note) => void notes.push(note),
    });
  const [one, many, again] = [await open(folder), await open(shards), await open(folder)];
  assert.equal(notes.length, 2, "made once each");
  const expected = await step(cpu, one);
  for (const other of [many, again]) assert.deepEqual(await step(cpu, other), expected);
});

test("a damaged cache is noticed and made again", async (t) => {
  const folder = await writeTiny(t);
  const cacheDir = await temporaryFolder(t);
  let made = 0;
  const open = async () =>
    withBlocks(await openWithTemperatures(folder), specs[0]!, { cacheDir, onNote: () => made++ });
  await open();
  const [name] = await readdir(join(cacheDir, "quantized"));
  const path = join(cacheDir, "quantized", name!, "model.safetensors");
  const sound = await readFile(path);
  const edited = Buffer.from(sound);
  edited[edited.length - 100]! ^= 1;
  const damages = [
    () => writeFile(path, edited),
    () => truncate(path, sound.length - 1000),
    () => writeFile(join(path, "..", "seal.json"), "{}"),
  ];
  for (const [i, damage] of damages.entries()) {
    await damage();
    await open();
    assert.equal(made, i + 2);
    assert.deepEqual(await readFile(path), sound);
  }
  assert.deepEqual(await readdir(join(cacheDir, "quantized")), [name]);
});

test("a base without whole blocks, and a head without a type, are refused", async (t) => {
  const opened = await openWithTemperatures(join(fixtures, "llama"));
  const cacheDir = await temporaryFolder(t);
  await assert.rejects(withBlocks(opened, { ...specs[0]!, block: 128 }, { cacheDir }), UserError);
  const base = ["finetune", "--base", "tiny-gpt2", "--data", "moby-dick", "--dry-run"];
  const refusals = [
    [["--quantize-head"], /--quantize-head is of a quantised base/],
    [
      ["--quantize", "q4", "--tune", "all"],
      /all trains matrices, which a quantised base has only frozen/,
    ],
    [["--quantize", "q5"], /quantize .*expected none, q4 or q8, found "q5"/],
  ] as const;
  for (const [flags, message] of refusals) {
    const { code, stderr } = await ssa([...base, ...flags]);
    assert.match(stderr, message);
    assert.equal(code, 2);
  }
});

const mount = `exec unshare -rm sh -c 'mount -t tmpfs -o size=300k none "$PWD/cache" && "$@"; code=$?; find cache -type f; exit $code' sh "$@"`;

test("a full disk is told, and nothing is left behind", async (t) => {
  const cwd = await temporaryFolder(t);
  await mkdir(join(cwd, "cache"));
  const can = spawnSync("sh", ["-c", mount, "sh", "true"], { cwd }).status === 0;
  if (!can) return t.skip("no mount of one's own here");
  const args = ["eval", "--model", "tiny-gpt2", "--data", "moby-dick", "--quantize", "q8"];
  const { code, stdout, stderr } = await ssa(args, {
    cwd,
    env: { SSA_CACHE: join(cwd, "cache") },
    script: mount,
  });
  assert.match(stderr, /cannot write .*quantized.*: the disk is full/);
  assert.equal(code, 1);
  assert.doesNotMatch(stdout, /quantized/);
});
