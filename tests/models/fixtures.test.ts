// Every architecture and variant against PyTorch: logits, loss, and the gradient of the loss for every weight; the
// same for temperatures, and for weights stored in fewer bits, on a variant of each.

import assert from "node:assert/strict";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { encodeFloats } from "../../src/core/dtype.ts";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import {
  openSafetensors,
  readBytes,
  readFloats,
  writeSafetensors,
} from "../../src/files/safetensors.ts";
import { gradients } from "../../src/graph/autodiff.ts";
import { input, mul, reduceSum, reshape } from "../../src/graph/build.ts";
import { simplify, verify } from "../../src/graph/passes.ts";
import { tokenScores } from "../../src/nn/loss.ts";
import { fixtures, specsOf, variants } from "../fixtures/variants.ts";
import { temporaryFolder } from "../helpers.ts";

const architectures = variants.filter((variant) => specsOf(variant).length > 0);

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

/** Runs loss and gradients of the given tensors and compares all with what PyTorch computed. */
async function compare(opened: OpenedModel, expectedPath: string) {
  const { tensors } = await openSafetensors(expectedPath);
  const expected = async (name: string) => readFloats(tensors.get(name)!);
  const { shape } = tensors.get("input_ids")!;
  const [batchSize, context] = shape as [number, number];
  const ids = new BigInt64Array((await readBytes(tensors.get("input_ids")!)).buffer);
  // Gradients by the names that the checkpoint stores, which may lack a prefix or name the other of a tied pair.
  const { model } = opened;
  const canonical = (stored: string) =>
    stored === model.outputEmbedding && model.config.isTied
      ? model.inputEmbedding
      : model.canonicalName(stored)!;
  const stored = [...tensors.keys()].filter((n) => n.startsWith("grad.")).map((n) => n.slice(5));
  const names = stored.map(canonical);

  const graph = buildForward(opened, { batchSize, context }, { trainable: new Set(names) });
  const labels = input("labels", [batchSize, context], "I64");
  const weights = input("weights", [batchSize, context], "F32");
  const { nats } = tokenScores(graph.hidden, graph.head, labels, graph.tiling, graph.logitCap);
  const total = reshape(reduceSum(mul(nats, weights), [0, 1]), []);
  const wrt = names.map((name) => graph.trainable.get(name)!);
  const grads = gradients(total, wrt).map((grad, i) => [`grad.${stored[i]!}`, grad] as const);
  const outputs = simplify({ logits: logitsOf(graph), loss: total, ...Object.fromEntries(grads) });
  verify(outputs);

  const program = await engine.compile(outputs, boundWeights(opened));
  const targets = batchSize * (context - 1);
  const isTarget = (i: number) => (i + 1) % context !== 0;
  const values = await Promise.all(
    names.map(async (name) => {
      const value = (opened.lora ?? opened.temperatures)?.values.get(name);
      return [name, value ?? (await readFloats(opened.weights.get(name)!))] as const;
    }),
  );
  const results = await program.run({
    ids,
    labels: ids.map((_, i) => (isTarget(i) ? ids[i + 1]! : 0n)),
    weights: Float32Array.from(ids, (_, i) => (isTarget(i) ? 1 / targets : 0)),
    ...Object.fromEntries(values),
  });
  const logits = await expected("logits");
  assert.ok(largestDifference(results["logits"]!, logits) <= 2e-5, "logits");
  const [loss] = await expected("loss");
  assert.ok(Math.abs(results["loss"]![0]! - loss!) <= 1e-6 * loss!, "loss");
  for (const [name] of grads) {
    const truth = await expected(name);
    const largest = truth.reduce((max, v) => Math.max(max, Math.abs(v)), 0);
    const difference = largestDifference(results[name]!, truth);
    // Without rotary positions a bias of the keys moves no probability: zero, but for rounding.
    assert.ok(difference <= 1e-4 * largest + 2e-8, `${name}: ${difference} of ${largest}`);
  }
  await program.dispose();
  return names.length;
}

function largestDifference(actual: Float32Array, expected: Float32Array): number {
  assert.equal(actual.length, expected.length);
  return expected.reduce((max, value, i) => Math.max(max, Math.abs(value - actual[i]!)), 0);
}

for (const variant of variants)
  test(`${variant}: logits, loss and every weight's gradient equal PyTorch's`, async () => {
    const folder = join(fixtures, variant);
    const model = await openModel(folder);
    const compared = await compare(model, join(folder, "expected.safetensors"));
    assert.equal(compared, model.model.weights.size);
  });

for (const variant of architectures)
  for (const dtype of ["F16", "BF16"] as const)
    test(`${variant} stored as ${dtype}: the same figures`, async (t) => {
      const folder = await temporaryFolder(t);
      const source = join(fixtures, variant);
      await copyFile(join(source, "config.json"), join(folder, "config.json"));
      const { tensors } = await openSafetensors(source);
      const stored = [...tensors.values()].filter((info) => info.dtype === "F32");
      const halves = stored.map(async (info) => {
        const data = encodeFloats(dtype, await readFloats(info));
        return { name: info.name, dtype, shape: info.shape, data };
      });
      await writeSafetensors(join(folder, "model.safetensors"), await Promise.all(halves));
      await compare(await openModel(folder), join(source, "expected.safetensors"));
    });

for (const variant of architectures)
  for (const spec of specsOf(variant))
    test(`${variant} with ${spec} temperatures: loss and their gradients equal PyTorch's`, async () => {
      const adapter = join(fixtures, variant, "ssa", spec);
      const model = await openModel(join(fixtures, variant), { adapter });
      const compared = await compare(model, join(adapter, "expected.safetensors"));
      assert.equal(compared, model.temperatures!.values.size);
    });

for (const variant of ["gpt2", "llama"])
  test(`${variant} with PEFT's LoRA: loss and the gradients of A and B equal PyTorch's`, async () => {
    const adapter = join(fixtures, variant, "lora");
    const model = await openModel(join(fixtures, variant), { adapter });
    assert.equal(await compare(model, join(adapter, "expected.safetensors")), 12);
  });

test("there are fixtures", () => assert.ok(variants.length >= 12, `${variants.length} variants`));
