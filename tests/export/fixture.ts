// Models to export (the PyTorch fixtures with their random temperatures, a run's folder), what they generate, and what
// a refusal looks like.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { encodeFloats } from "../../src/core/dtype.ts";
import { UserError } from "../../src/core/errors.ts";
import { openEngine } from "../../src/engines/index.ts";
import type { openClient } from "../../src/export/client.ts";
import { writeModelFolder } from "../../src/export/model-folder.ts";
import { provenanceOf } from "../../src/export/provenance.ts";
import { openSafetensors, readFloats, writeSafetensors } from "../../src/files/safetensors.ts";
import { simplify } from "../../src/graph/passes.ts";

export const architectures = ["gpt2", "llama", "gpt_neox"] as const;

/** A base of random weights and an adapter of random temperatures on query, key and value. */
export function fixture(architecture: string, spec = "full") {
  const model = fileURLToPath(new URL(`../fixtures/${architecture}`, import.meta.url));
  return { model, adapter: join(model, "ssa", spec) };
}

/** The folder of a finished run of `ssa finetune` that trained the given groups of a base with the given licence. */
export async function writeRun(
  folder: string,
  { tune = ["temperatures"], licence = "license: mit" } = {},
): Promise<string> {
  const run = join(folder, "run");
  const final = join(run, "final");
  await mkdir(final, { recursive: true });
  await writeFile(join(run, "recipe.yaml"), "base: org/base\n");
  const result = { convention: "disjoint", context: 32, stride: 32, numTokens: 1000 };
  const report = {
    before: { ...result, perplexity: 20.5, lossNats: 3.02, modelSha256: "b" },
    after: { ...result, perplexity: 18.25, lossNats: 2.9, modelSha256: "a", dataSha256: "d" },
    delta: { percent: -10.9756, interval95: [-12.5, -9.25] },
    recipe: { base: "org/base", data: "org/data", tune, init: "pretrained", steps: 20 },
  };
  await writeFile(join(run, "report.json"), JSON.stringify(report));
  const { model, adapter } = fixture("llama");
  const base = join(folder, "base");
  await cp(model, base, { recursive: true });
  // With the mark that editors of Windows put in front.
  await writeFile(join(base, "README.md"), `\uFEFF---\n${licence}\n---\n`);
  const hasTrainedBase = tune.join() !== "temperatures";
  const opened = await openModel(base, { adapter });
  await writeModelFolder(final, opened, { ...(await provenanceOf(opened)), hasTrainedBase });
  return run;
}

/** Logits of each token, evaluated anew over the whole window: `next(ids)` is the most probable token after `ids`. */
export async function openGreedy(opened: OpenedModel, context: number) {
  const engine = await openEngine("cpu", { threads: 1 });
  const outputs = simplify({
    logits: logitsOf(buildForward(opened, { batchSize: 1, context })),
  });
  const program = await engine.compile(outputs, boundWeights(opened));
  const logits = async (ids: readonly number[]) => {
    const padded = BigInt64Array.from({ length: context }, (_, i) => BigInt(ids[i] ?? 0));
    return (await program.run({ ids: padded }))["logits"]!;
  };
  const { vocabSize } = opened.model.config;
  return {
    logits,
    next: async (ids: readonly number[]) => {
      const row = (await logits(ids)).subarray(
        (ids.length - 1) * vocabSize,
        ids.length * vocabSize,
      );
      return row.indexOf(row.reduce((max, value) => Math.max(max, value)));
    },
    dispose: async () => {
      await program.dispose();
      await engine.dispose();
    },
  };
}

/** The prompt and the tokens that greedy decoding of the whole window adds, up to the model's last position. */
export async function greedyTokens(
  { model, adapter }: { readonly model: string; readonly adapter?: string },
  prompt: readonly number[],
  length: number,
): Promise<number[]> {
  const opened = await openModel(model, { ...(adapter && { adapter }) });
  const greedy = await openGreedy(opened, length);
  const ids = [...prompt];
  while (ids.length < length) ids.push(await greedy.next(ids));
  await greedy.dispose();
  return ids;
}

/** Greedy generation by the library, up to `length` tokens; the last row's first `numPadded` tokens are padding. */
export async function generated(
  client: Awaited<ReturnType<typeof openClient>>,
  rows: readonly (readonly number[])[],
  length: number,
  numPadded = 0,
): Promise<number[][]> {
  const { Tensor } = await import("@huggingface/transformers");
  const shape = [rows.length, rows[0]!.length];
  const isPadding = (row: number, i: number) => row === rows.length - 1 && i < numPadded;
  const mask = rows.flatMap((row, r) => row.map((_, i) => (isPadding(r, i) ? 0n : 1n)));
  const sequences = (await client.model.generate({
    inputs: new Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), shape),
    attention_mask: new Tensor("int64", BigInt64Array.from(mask), shape),
    max_new_tokens: length - shape[1]!,
  })) as { tolist(): bigint[][] };
  return sequences.tolist().map((row) => row.map(Number));
}

/** Accepts a UserError with this in its message or hint. */
export const refused =
  (message: RegExp, exitCode = 2) =>
  (error: unknown) => {
    assert.ok(error instanceof UserError, String(error));
    assert.match(`${error.message}\n${error.hint ?? ""}`, message);
    assert.equal(error.exitCode, exitCode);
    return true;
  };

/** Writes a model folder with other values, and without metadata that says where they are from. */
export async function rewrite(
  from: string,
  to: string,
  change: (values: Float32Array) => Float32Array,
): Promise<void> {
  await mkdir(to);
  for (const name of ["config.json", "ssa_config.json"])
    if (existsSync(join(from, name))) await cp(join(from, name), join(to, name));
  const { tensors } = await openSafetensors(from);
  const floats = [...tensors.values()].filter(({ dtype }) => dtype === "F32");
  const changed = floats.map(async (info) => {
    const data = encodeFloats("F32", change(await readFloats(info)));
    return { name: info.name, shape: info.shape, dtype: "F32" as const, data };
  });
  await writeSafetensors(join(to, "model.safetensors"), await Promise.all(changed));
}
