// Whatever a user calls a model means the same to every command: each kind of name through the function of each command.

import assert from "node:assert/strict";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { convert } from "../../src/export/convert.ts";
import { readJson, writeJson } from "../../src/files/json.ts";
import { saveSnapshot } from "../../src/files/run-folder.ts";
import { modelSha256, openSafetensors } from "../../src/files/safetensors.ts";
import { cachedExport } from "../../src/generate/generate.ts";
import { hubSettings } from "../../src/hub/environment.ts";
import { adapterJson, insertedTensors } from "../../src/model/opened.ts";
import { openModel, type OpenOptions } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { opening, placesOf } from "../../src/model/places.ts";
import { recipeSchema } from "../../src/options/schema.ts";
import { inspectModel } from "../../src/run/inspect.ts";
import { fixture, refused } from "../export/fixture.ts";
import { sharedFolder } from "../helpers.ts";

const root = sharedFolder();
const at = (...names: string[]) => join(root, ...names);
const plain = fixture("gpt2");
let expected: OpenedModel;

/** The options of a command; notes are kept. */
const notes: string[] = [];
const options: OpenOptions = {
  ...opening(
    placesOf({ hub: hubSettings({ HF_HUB_OFFLINE: "1", HF_HUB_CACHE: at("hub") }, root) }),
    at("package"),
  ),
  onNote: (note) => notes.push(note),
};

const kinds: Readonly<Record<string, { readonly model: string; readonly adapter?: string }>> = {
  "a hub id": { model: "org/model" },
  "an embedded name": { model: "tiny-gpt2" },
  "a model folder": { model: at("folder") },
  "a run folder": { model: at("run") },
  "a run's final/": { model: at("run", "final") },
  "a run that ends in an adapter": { model: at("adapter-run") },
  "a run that is not finished": { model: at("unfinished") },
  "an adapter folder alone": { model: at("adapter") },
  "a base with an adapter": { model: at("base"), adapter: at("adapter") },
};

before(async () => {
  expected = await openModel(plain.model, plain);
  await mkdir(at("base"));
  for (const name of ["config.json", "model.safetensors"])
    await cp(join(plain.model, name), at("base", name));
  await cp(plain.adapter, at("adapter"), { recursive: true });
  const spec = await readJson(at("adapter", "ssa_config.json"));
  const sha256 = await modelSha256(await openSafetensors(at("base")));
  await writeJson(at("adapter", "ssa_config.json"), {
    ...spec,
    base_model_name_or_path: at("base"),
    base_sha256: sha256,
  });
  const opened = await openModel(at("base"), { adapter: at("adapter") });
  await convert({
    model: at("base"),
    adapter: at("adapter"),
    target: "safetensors",
    out: at("folder"),
  });

  const commit = "0123456789".repeat(4);
  const snapshot = at("hub", "models--org--model", "snapshots", commit);
  for (const to of [snapshot, at("package", "checkpoints", "tiny-gpt2"), at("run", "final")])
    await cp(at("folder"), to, { recursive: true });
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    await writeFile(join(snapshot, name), "{}");
  await mkdir(at("hub", "models--org--model", "refs"));
  await writeFile(at("hub", "models--org--model", "refs", "main"), commit);

  await cp(at("adapter"), at("adapter-run", "final"), { recursive: true });
  await mkdir(at("unfinished"));
  for (const run of ["run", "adapter-run", "unfinished"])
    await writeFile(at(run, "recipe.yaml"), `base: ${at("base")}\ndata: text.txt\n`);
  const tensors = { adapter: insertedTensors("temperatures", opened), trained: [], optimizer: [] };
  const zero = tensors.adapter.map((tensor) => {
    return { ...tensor, data: new Uint8Array((tensor.data as Uint8Array).length) };
  });
  const adapterConfig = adapterJson("temperatures", opened, { name: at("base"), sha256 });
  const save = (step: number, adapter: typeof tensors.adapter) =>
    saveSnapshot(
      at("unfinished"),
      { step, tensors: { ...tensors, adapter }, state: {} },
      { adapterConfig },
    );
  await save(1, zero);
  await save(2, tensors.adapter);
});

/** The same shapes of weights and the same temperatures. */
function assertSame(opened: OpenedModel): void {
  const [{ insertion, values }, from] = [opened.temperatures!, expected.temperatures!];
  assert.deepEqual([insertion.spec, values], [from.insertion.spec, from.values]);
  assert.deepEqual([...opened.weights.keys()].toSorted(), [...expected.weights.keys()].toSorted());
}

for (const [kind, { model, adapter }] of Object.entries(kinds))
  test(`${kind} is the same model to all commands`, async () => {
    const given = { ...options, adapter };
    notes.length = 0;
    assertSame(await openModel(model, given)); // eval
    const isUnfinished = model === at("unfinished");
    assert.deepEqual(
      notes,
      isUnfinished ? [`the run ${model} is not finished: step-000002 is taken`] : [],
    );
    const recipe = recipeSchema.parse({ base: model, data: "text.txt" });
    const withoutWeights = recipe.init === "random";
    assertSame(await openModel(recipe.base, { ...given, withoutWeights })); // finetune
    const { isAugmented, temperatures } = await inspectModel(model, given);
    assert.ok(isAugmented);
    assert.deepEqual(temperatures!.spec, expected.temperatures!.insertion.spec);
    const out = at("out", kind);
    await convert({ ...given, model, target: "safetensors", out });
    assertSame(await openModel(out));
    const graph = await cachedExport({ ...given, model, cacheFolder: at("cache") }); // generate
    assert.ok(existsSync(join(graph, "onnx", "model.onnx")));
  });

test("what cannot be opened is named for what it is, with a way out", async () => {
  await mkdir(at("empty-run"));
  await writeFile(at("empty-run", "recipe.yaml"), `base: ${at("base")}\ndata: text.txt\n`);
  await mkdir(at("peft"));
  for (const name of ["adapter_config.json", "adapter_model.bin"])
    await writeFile(at("peft", name), "{}");
  await writeFile(at("model.gguf"), "GGUF");
  const { base_model_name_or_path: _, ...nameless } = await readJson(
    at("adapter", "ssa_config.json"),
  );
  await cp(at("adapter"), at("nameless"), { recursive: true });
  await writeJson(at("nameless", "ssa_config.json"), nameless);
  const cases: readonly (readonly [string, string | undefined, RegExp])[] = [
    [
      at("empty-run"),
      undefined,
      /not finished, and it has no checkpoint yet\nfinish it: ssa finetune/,
    ],
    [at("unfinished"), at("adapter"), /not finished, and an adapter needs a plain base/],
    [at("peft"), undefined, /is an adapter of PEFT without adapter_model.safetensors.*\nsave it/],
    [at("base"), at("peft"), /is an adapter of PEFT/],
    [at("model.gguf"), undefined, /is a damaged GGUF file/],
    [at("nameless"), undefined, /does not name its base\nname both/],
    [at("folder"), at("adapter"), /has temperatures already/],
    [fixture("gpt2-tanh").model, at("adapter"), /was trained on another base/],
  ];
  for (const [model, adapter, message] of cases)
    await assert.rejects(openModel(model, { ...options, adapter }), refused(message));
});
