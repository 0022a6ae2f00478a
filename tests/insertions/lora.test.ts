// LoRA: where it is put, what it starts from, its gradients, its files, and a run of it from end to end.

import assert from "node:assert/strict";
import { cp, mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { convert } from "../../src/export/convert.ts";
import { writeAdapter } from "../../src/export/model-folder.ts";
import { verify } from "../../src/export/verify.ts";
import { writeJson } from "../../src/files/json.ts";
import { openSafetensors } from "../../src/files/safetensors.ts";
import { type Inserted, withInitialValues } from "../../src/insertions/insertion.ts";
import { lora } from "../../src/insertions/lora.ts";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { inspectModel } from "../../src/run/inspect.ts";
import { openTrainingStep } from "../../src/train/step.ts";
import { refused } from "../export/fixture.ts";
import { temporaryFolder } from "../helpers.ts";
import { largestDifference, logits as modelLogits } from "../model/logits.ts";
import { fixture, outcomeOf, readJson, smallRun, writeTokens } from "../run/small-run.ts";

const engine: Engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

const attention = { rank: 3, alpha: 6, modules: ["attention"] };
const rows = [1, 5, 9, 2, 30, 7, 11, 3, 14, 6];

const logits = (opened: OpenedModel) => modelLogits(engine, opened, rows);

const inserted = ({ model }: OpenedModel, choice: Parameters<typeof lora.choose>[1]): Inserted =>
  withInitialValues(lora.choose(model, choice), model, createRandom(1));

/** With a B that is not zero. */
function trained(opened: OpenedModel, choice: Parameters<typeof lora.choose>[1]): OpenedModel {
  const random = createRandom(2);
  const { insertion, values } = inserted(opened, choice);
  const drawn = [...values].map(
    ([name, list]) =>
      [name, name.includes("lora_B") ? list.map(() => random.normal() * 0.2) : list] as const,
  );
  return { ...opened, lora: { insertion, values: new Map(drawn) } };
}

const fused = {
  gpt2: ["c_attn", "attn.c_proj"],
  gpt_neox: ["query_key_value", "dense"],
  phi3: ["qkv_proj", "o_proj"],
  llama: ["q_proj", "k_proj", "v_proj", "o_proj"],
  gemma2: ["q_proj", "k_proj", "v_proj", "o_proj"],
  opt: ["q_proj", "k_proj", "v_proj", "out_proj"],
};

for (const [family, targets] of Object.entries(fused))
  test(`${family}: it starts as the base bit for bit, merged it is what it was, and its files are read back`, async (t) => {
    const folder = await temporaryFolder(t);
    const base = await openModel(fixture(family));
    const start = { ...base, lora: inserted(base, attention) };
    assert.deepEqual(await logits(start), await logits(base));

    const made = trained(base, attention);
    const unmerged = await logits(made);
    assert.notDeepEqual(unmerged, await logits(base));
    await writeAdapter(folder, made, { name: fixture(family), sha256: "" });
    await verify("adapter", folder, made);
    const config = await readJson(join(folder, "adapter_config.json"));
    assert.deepEqual((config["target_modules"] as string[]).toSorted(), targets.toSorted());
    assert.equal(config["fan_in_fan_out"], family === "gpt2");
    assert.deepEqual(await logits(await openModel(folder)), unmerged);
    const out = join(folder, "merged");
    await convert({ model: folder, target: "safetensors", out });
    const merged = await openModel(out);
    assert.equal(merged.lora, undefined);
    assert.ok(largestDifference(await logits(merged), unmerged) <= 1e-5);
    assert.match(await readFile(join(out, "README.md"), "utf8"), /with LoRA .* merged/);
  });

test("modules are named as PEFT names them, and what is none is refused with those that are", async () => {
  const { model } = await openModel(fixture());
  const of = (modules: readonly string[]) =>
    [
      ...lora
        .choose(model, { ...attention, modules })
        .parameters(model)
        .keys(),
    ]
      .filter((name) => name.includes("h.0.") && name.includes("lora_A"))
      .map((name) => name.replace(/^transformer\.h\.0\.|\.lora_A\.weight$/g, ""));
  assert.deepEqual(of(["all-linear"]), ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]);
  assert.deepEqual(of(["c_proj"]), ["attn.c_proj", "mlp.c_proj"]);
  assert.deepEqual(of(["mlp.c_proj", "c_attn"]), ["attn.c_attn", "mlp.c_proj"]);
  const message = /no linear layer "q_proj"\nit has c_attn, c_proj, c_fc; or take attention/;
  assert.throws(() => of(["c_attn", "q_proj"]), refused(message));
});

test("initial values are PEFT's: A uniform within 1 / √in, B zero", async () => {
  const opened = await openModel(fixture());
  const { values } = inserted(opened, { ...attention, rank: 16 });
  for (const [name, list] of values) {
    const [D, largest] = [list.length / 16, Math.max(...list.map(Math.abs))];
    if (name.includes("lora_B")) assert.equal(largest, 0);
    else assert.ok(largest <= D ** -0.5 && largest > 0.9 * D ** -0.5, `${name}: ${largest}`);
  }
});

for (const [precision, recompute, tolerance] of [
  ["fp32", "blocks", 5e-3],
  ["fp32", "cheap", 5e-3],
  ["fp16", "cheap", 0.05],
] as const)
  test(`gradients in packed rows, ${precision}, recomputing ${recompute}, are central differences`, async () => {
    const opened = trained(await openModel(fixture("llama")), {
      ...attention,
      modules: ["all-linear"],
    });
    const { values } = opened.lora!;
    const feeds = Object.fromEntries([...values].map(([name, list]) => [name, list.slice()]));
    const names = [...values.keys()];
    const shape = { batchSize: 1, context: rows.length, isPacked: true };
    const exact = await openTrainingStep(engine, opened, shape, names);
    const step = await openTrainingStep(engine, opened, shape, names, { precision, recompute });
    const batch = {
      ids: Int32Array.from(rows),
      labels: Int32Array.from(rows, (_, i) => (i % 5 === 4 ? -100 : rows[i + 1]!)),
      positions: Int32Array.from(rows, (_, i) => i % 5),
      numTargets: 8,
    };
    const { gradients } = await step.run(batch, feeds);
    const found = new Map([...gradients].map(([name, list]) => [name, list.slice()]));
    for (const name of names) {
      const gradient = found.get(name)!;
      const at = gradient.reduce(
        (best, v, i) => (Math.abs(v) > Math.abs(gradient[best]!) ? i : best),
        0,
      );
      const h = 1 / 64;
      const moved = async (by: number) => {
        const values = feeds[name]!.with(at, feeds[name]![at]! + by);
        return (await exact.run(batch, { ...feeds, [name]: values })).nats;
      };
      const [near, far] = [
        (await moved(h)) - (await moved(-h)),
        (await moved(2 * h)) - (await moved(-2 * h)),
      ];
      const difference = (8 * near - far) / (12 * h);
      const error = Math.abs(gradient[at]! - difference);
      assert.ok(error <= tolerance * Math.max(0.05, Math.abs(difference)), `${name}: ${error}`);
    }
    await exact.dispose();
    await step.dispose();
  });

const recipe = { tune: "temperatures,lora,norms", lora: { rank: 2 }, loraLearningRate: 0.01 };

test("a run with temperatures and norms, stopped and continued, equals the whole; its final model has it merged", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const [whole, parts] = [join(folder, "whole"), join(folder, "parts")];
  const result = await smallRun({ engine, folder: whole, data, recipe });
  assert.ok(result.outcome === "finished");
  const { parameters, before, after } = result.report;
  // Two layers of c_attn, 16 to 48, and c_proj, 16 to 16, and the temperatures.
  const { model } = await openModel(fixture());
  const ofLora = [...model.linears].reduce(
    (sum, [name, [D, F]]) => sum + (name.includes(".attn.") ? 2 * (D + F) : 0),
    0,
  );
  const last = await openSafetensors(join(whole, "step-000008", "adapter_model.safetensors"));
  const sizes = [...last.tensors.values()].map(({ byteLength }) => byteLength / 4);
  assert.equal(
    sizes.reduce((sum, size) => sum + size, 0),
    ofLora,
  );
  assert.ok(parameters.added > ofLora && parameters.trained! > parameters.added);
  assert.ok(after.lossNats < before.lossNats);

  const stopAt = (event: { kind: string; step?: number }) =>
    event.kind === "step" && event.step === 5;
  await smallRun({ engine, folder: parts, data, recipe, stopAt });
  await smallRun({ engine, folder: parts, data, recipe, isResumed: true });
  assert.deepEqual(await outcomeOf(parts), await outcomeOf(whole));

  const { lora: none, temperatures } = await openModel(join(whole, "final"));
  assert.ok(temperatures && !none);
});

test("a run of an adapter leaves PEFT's files beside ours, which go on and are merged", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const run = join(folder, "run");
  const own = { ...recipe, tune: "temperatures,lora", final: "adapter" };
  await smallRun({ engine, folder: run, data, recipe: own });
  const opened = await openModel(run);
  assert.ok(opened.lora && opened.temperatures);
  const { tensors } = await openSafetensors(join(run, "final", "adapter_model.safetensors"));
  assert.ok(tensors.has("base_model.model.transformer.h.1.attn.c_attn.lora_A.weight"));
  const inspection = await inspectModel(run);
  assert.match(inspection.lora!.description, /LoRA: rank 2 of c_attn, c_proj/);
  // Another model of a shape that fits is not its base.
  await assert.rejects(
    openModel(fixture("gpt2-tanh"), { adapter: join(run, "final") }),
    refused(/was trained on another base/),
  );
  await convert({ model: run, target: "adapter", out: join(folder, "copy") });
  await convert({ model: run, target: "onnx", out: join(folder, "onnx") });
  await convert({ model: run, target: "safetensors", out: join(folder, "merged") });
  const expected = await logits(opened);
  assert.deepEqual(await logits(await openModel(join(folder, "copy"))), expected);
  const merged = await logits(await openModel(join(folder, "merged")));
  assert.ok(largestDifference(merged, expected) <= 1e-5);
  // Trained further, under the same specification.
  const further = { ...own, final: "model", steps: 2 };
  const result = await smallRun({
    engine,
    folder: join(folder, "on"),
    data,
    model: run,
    recipe: further,
  });
  assert.equal(result.outcome, "finished");
  await assert.rejects(
    smallRun({ engine, folder: join(folder, "no"), data, model: run, recipe: own }),
    refused(/has LoRA and temperatures already; an adapter needs a plain base/),
  );
});

test("what PEFT writes and this is not, is named", async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(fixture("llama"), "lora");
  const config = await readJson(join(source, "adapter_config.json"));
  const cases: readonly (readonly [object, RegExp | null])[] = [
    [{ peft_type: "IA3" }, /peft_type "IA3" is not supported\nLoRA of linear layers is/],
    [{ use_dora: true }, /use_dora true is not supported/],
    [{ bias: "all" }, /bias "all" is not supported/],
    [{ modules_to_save: ["lm_head"] }, /modules_to_save/],
    [{ init_lora_weights: "pissa" }, /init_lora_weights "pissa"/],
    [{ lora_alpha: "8" }, /"lora_alpha" must be a number, found "8"/],
    [{ r: 4 }, /rank 4 is not that of model.layers.0/],
    [{ r: 4, rank_pattern: { q_proj: 2 } }, null],
    [{ use_rslora: true, alpha_pattern: {}, target_modules: ".*proj" }, null],
  ];
  for (const [i, [change, message]] of cases.entries()) {
    const adapter = join(folder, String(i));
    await mkdir(adapter);
    await cp(join(source, "adapter_model.safetensors"), join(adapter, "adapter_model.safetensors"));
    await writeJson(join(adapter, "adapter_config.json"), { ...config, ...change });
    const opening = openModel(fixture("llama"), { adapter });
    if (message) await assert.rejects(opening, refused(message));
    else assert.ok((await opening).lora);
  }
  await assert.rejects(
    openModel(fixture("gpt2"), { adapter: source }),
    refused(/LoRA model.layers.0.mlp.down_proj.lora_A.weight is unexpected/),
  );
  await assert.rejects(openModel(source), refused(/does not name its base/));
});
