// Constant temperatures become weights: the plain model has the logits of the augmented one, in memory and on disk.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { convert } from "../../src/export/convert.ts";
import { writeAdapter } from "../../src/export/model-folder.ts";
import { withInitialValues } from "../../src/insertions/insertion.ts";
import { DEFAULT_TEMPERATURES, onlyParts } from "../../src/insertions/parts.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { temporaryFolder } from "../helpers.ts";
import { largestDifference, logits as modelLogits } from "../model/logits.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;
const constant = onlyParts("constant");
// YaRN's factor is a number as well.
const query = { ...constant, yarn: 8 };
const everywhere = { ...DEFAULT_TEMPERATURES, query, key: constant, value: constant };
const ids = [5, 2, 8, 1, 9, 3, 4, 7];

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

/** A base with random constant temperatures, and a folder with them as an adapter. */
async function augmented(architecture: string, spec = everywhere) {
  const base = await openModel(join(fixtures, architecture));
  const random = createRandom(7);
  const { insertion, values } = withInitialValues(temperatures.of(spec), base.model, random);
  for (const value of values.values()) value.forEach((_, i) => (value[i] = random.normal()));
  return { ...base, temperatures: { insertion, values } };
}

async function adapterOf(opened: OpenedModel, folder: string) {
  await mkdir(folder);
  await writeAdapter(folder, opened, {});
  return { model: opened.folder, adapter: folder };
}

const logits = (opened: OpenedModel) => modelLogits(engine, opened, ids);

for (const architecture of [
  "gpt2",
  "gpt2-untied",
  "llama",
  "llama-bias",
  "gpt_neox",
  "qwen2",
].concat(["smollm3", "phi3", "granite", "gemma2", "gpt_neo", "starcoder2", "opt"]))
  test(`${architecture}: a folded export is a plain model with the same logits`, async (t) => {
    const opened = await augmented(architecture);
    const folder = await temporaryFolder(t);
    const source = await adapterOf(opened, join(folder, "adapter"));
    const out = join(folder, "plain");
    const { files, notes } = await convert({ ...source, target: "safetensors", out });
    assert.ok(!files.some(({ name }) => /ssa|folded/.test(name)), "only a plain model's files");
    assert.ok(notes.some((note) => note.includes("part of the weights")));

    const plain = await openModel(out);
    assert.equal(plain.temperatures, undefined);
    const expected = await logits(opened);
    assert.ok(largestDifference(await logits(plain), expected) <= 1e-5);
    // So that the test can fail: the base's logits are others.
    const { temperatures: _, ...base } = opened;
    assert.ok(largestDifference(await logits(base), expected) > 1e-2);
  });

test("onnx: the folded graph is checked in its client", async (t) => {
  const folder = await temporaryFolder(t);
  const source = await adapterOf(await augmented("llama"), join(folder, "adapter"));
  const { verification } = await convert({ ...source, target: "onnx", out: join(folder, "onnx") });
  assert.equal(verification.what, "logits");
});

test("one set for all heads, or all layers, is folded into each", async (t) => {
  const folder = await temporaryFolder(t);
  const opened = await augmented("llama", { ...everywhere, tie: "all" });
  assert.equal(opened.temperatures.values.size, 3);
  const source = await adapterOf(opened, join(folder, "adapter"));
  const out = join(folder, "plain");
  await convert({ ...source, target: "safetensors", out });
  const plain = await openModel(out);
  assert.equal(plain.temperatures, undefined);
  assert.ok(largestDifference(await logits(plain), await logits(opened)) <= 1e-5);
});

test("an adapter keeps constant temperatures, in their version", async (t) => {
  const folder = await temporaryFolder(t);
  const opened = await augmented("gpt2");
  const source = await adapterOf(opened, join(folder, "adapter"));
  const back = await openModel(source.model, source);
  assert.deepEqual(back.temperatures!.values, opened.temperatures.values);
  assert.equal(back.temperatures!.insertion.toJson(back.model)["format_version"], 3);
});

test("nothing is folded where a part depends on token or position", async (t) => {
  const spec = { ...everywhere, value: onlyParts("constant", "position") };
  const opened = await augmented("gpt2", spec);
  const { insertion, values } = opened.temperatures;
  assert.equal(insertion.fold(opened.model, values), null);
  const folder = await temporaryFolder(t);
  const out = join(folder, "out");
  const source = await adapterOf(opened, join(folder, "adapter"));
  await convert({ ...source, target: "safetensors", out });
  assert.ok(existsSync(join(out, "ssa_config.json")));
  assert.deepEqual((await openModel(out)).temperatures!.values, values);
});

for (const architecture of ["qwen3", "gemma3_text", "olmo2"])
  test(`${architecture}: a gain that a norm would undo stays inserted; the rest is folded`, async (t) => {
    const opened = await augmented(architecture);
    const { model, temperatures: inserted } = opened;
    const { changes, rest } = inserted.insertion.fold(model, inserted.values)!;
    assert.deepEqual(
      changes.map(({ name }) => name),
      Array.from(
        { length: model.config.numLayers },
        (_, layer) => `model.layers.${layer}.self_attn.v_proj.weight`,
      ),
    );
    assert.deepEqual(rest!.insertion.spec, { ...everywhere, value: onlyParts() });
    const kept = [...inserted.values].filter(([name]) => !name.includes(".value."));
    assert.deepEqual([...rest!.values], kept);
    const nowhere = { ...model, placeOf: () => null };
    assert.equal(inserted.insertion.fold(nowhere, inserted.values), null);

    const folder = await temporaryFolder(t);
    const out = join(folder, "out");
    const source = await adapterOf(opened, join(folder, "adapter"));
    await convert({ ...source, target: "safetensors", out });
    assert.ok(largestDifference(await logits(await openModel(out)), await logits(opened)) <= 1e-5);
  });
