// Writes what other programs and `openModel` read: a Hugging Face folder with the temperatures among the weights, or the
// temperatures alone.

import { existsSync } from "node:fs";
import { copyFile, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeFloats, precisionNamed, precisions, spellings } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { writeFileAtomic } from "../files/atomic.ts";
import { readJson, writeJson } from "../files/json.ts";
import { adapterFiles, modelFiles } from "../files/names.ts";
import { openSafetensors, writeSafetensors, writeSharded } from "../files/safetensors.ts";
import type { TensorSource } from "../files/safetensors.ts";
import { weightDtype } from "../model/graph.ts";
import { adapterJson, BASE_QUANTIZED, BASE_SHA256, insertedTensors } from "../model/opened.ts";
import type { BaseIdentity, OpenedModel } from "../model/opened.ts";
import { INSERTION_KINDS, insertionsOf, kindOf } from "../insertions/kinds.ts";
import type { ConvertOptions } from "./convert.ts";
import { licenceOf, type Provenance, provenanceKeys } from "./provenance.ts";
import { plainConfig } from "./transformers.ts";
import { floatsOf, streamAs } from "../model/weights.ts";

/** What every reader must know that does not know temperatures. */
export const SILENT_LOSS =
  "The *.ssa.* tensors are temperatures of Selective Self-Attention (arXiv 2411.12892). " +
  "A loader that ignores them, as Python's transformers does with no more than a warning, runs the base model instead.";

/** Base weights, in `dtype` or as they are stored, and F32 temperatures in shards, config with `code`, and companions. */
export async function writeModelFolder(
  folder: string,
  opened: OpenedModel,
  { base, hasTrainedBase }: Provenance,
  { dtype, maxFileBytes }: Pick<ConvertOptions, "dtype" | "maxFileBytes"> = {},
  code: JsonObject = {},
): Promise<void> {
  const { weights, temperatures, configJson, model } = opened;
  const { config } = adapterFiles.temperatures;
  const format = dtype && precisionNamed(dtype);
  const sources = [...weights].map(([name, info]): TensorSource => {
    const target = format ? precisions[format] : weightDtype(info);
    return { name, dtype: target, shape: info.shape, data: () => streamAs(info, target) };
  });
  if (temperatures) await writeJson(join(folder, config), temperatures.insertion.toJson(model));
  const metadata: Record<string, string> = { format: "pt" };
  if (temperatures) metadata["ssa"] = SILENT_LOSS;
  const licence = (await licenceOf(opened)).join("\n") || undefined;
  for (const [key, value] of Object.entries({ ...base, hasTrainedBase, licence }))
    if (value !== undefined)
      metadata[provenanceKeys[key as keyof typeof provenanceKeys]] = String(value);
  await writeSharded(folder, [...sources, ...insertedTensors("temperatures", opened)], {
    metadata,
    ...(maxFileBytes && { maxShardBytes: maxFileBytes }),
  });
  const dtypeKey = "dtype" in configJson ? "dtype" : "torch_dtype"; // the older name
  const changed = format && { [dtypeKey]: spellings[format][1] };
  await writeCompanions(opened, folder, { ...plainConfig(configJson), ...changed, ...code });
}

/** Refuses a model of which what is inserted is not the whole difference from its base. */
export function checkAdapterSource(opened: OpenedModel, { hasTrainedBase, base }: Provenance) {
  const isPlain = insertionsOf(opened).length === 0;
  const whole = "export the whole model: --to safetensors";
  const problems = [
    [isPlain, " has no temperatures, so there is nothing to put into an adapter", undefined],
    [hasTrainedBase, ": more than temperatures was trained, which an adapter cannot hold", whole],
    [
      hasTrainedBase === undefined || base.name === undefined,
      " does not say what base its temperatures belong to, or whether more was trained",
      `convert the folder of the run that trained it, or ${whole}`,
    ],
  ] as const;
  for (const [isSo, problem, hint] of problems)
    if (isSo) throw new UserError(opened.folder + problem, { hint });
}

/** Of each kind its tensors, and its config with the identity of the base that they belong to. */
export async function writeAdapter(folder: string, opened: OpenedModel, base: BaseIdentity) {
  for (const [kind] of insertionsOf(opened)) {
    const { config, weights } = adapterFiles[kind];
    const metadata = {
      format: "pt",
      ...(base.sha256 && { [BASE_SHA256]: base.sha256 }),
      ...(base.quantized && { [BASE_QUANTIZED]: base.quantized }),
    };
    await writeSafetensors(join(folder, weights), insertedTensors(kind, opened), metadata);
    await writeJson(join(folder, config), adapterJson(kind, opened, base));
  }
  const { chatTemplate } = opened;
  if (chatTemplate) await copyFile(chatTemplate, join(folder, modelFiles.chatTemplate));
}

/**
 * The model with all that is inserted, or these kinds of it, become part of its weights where it can, so that any client
 * runs it, or the same object; a file at `path` then holds the changed weights, so that memory need not.
 */
export async function folded(opened: OpenedModel, path: string, kinds = INSERTION_KINDS) {
  const foldings = insertionsOf(opened).flatMap(([kind, { insertion, values }]) => {
    const folding = kinds.includes(kind) && insertion.fold(opened.model, values);
    return folding ? [{ kind, ...folding }] : [];
  });
  if (foldings.length === 0) return opened;
  const changes = foldings.flatMap((folding) => folding.changes);
  const changed = [...new Set(changes.map(({ name }) => name))].map((name): TensorSource => {
    const info = opened.weights.get(name)!;
    const stored = weightDtype(info);
    const dtype = stored === "F16" || stored === "BF16" ? stored : "F32";
    const data = async function* () {
      const values = await floatsOf(info);
      for (const each of changes) if (each.name === name) each.change(values);
      yield encodeFloats(dtype, values);
    };
    return { name, dtype, shape: info.shape, data };
  });
  await writeSafetensors(path, changed);
  const weights = new Map([...opened.weights, ...(await openSafetensors(path)).tensors]);
  const made: { -readonly [Key in keyof OpenedModel]: OpenedModel[Key] } = { ...opened, weights };
  for (const { kind, rest } of foldings) {
    delete made[kind];
    if (rest) made[kind] = rest;
  }
  return made;
}

/** Refuses a model of which something would stay beside its weights, and names that. */
export function checkFolds(opened: OpenedModel) {
  for (const [kind, { insertion, values }] of insertionsOf(opened)) {
    const folding = insertion.fold(opened.model, values);
    const left = folding ? folding.rest?.insertion : insertion;
    const places = left?.describe(opened.model).map(({ place, form }) => `${place} (${form})`);
    if (!places) continue;
    const differ = "are not all the same for every token and position";
    const why = insertion.isConstant ? "stand behind a norm" : differ;
    const what = `${opened.folder}: ${kindOf(kind).word} of ${places.join(", ")} ${why}`;
    throw new UserError(`${what}, so they cannot become part of the weights`, {
      hint: "--to transformers without --fold writes a folder with the code that they need",
    });
  }
}

const COMPANIONS = [
  /^(tokenizer|tokenizer_config|special_tokens_map|added_tokens|generation_config|vocab)\.json$/,
  /^(merges\.txt|tokenizer\.model|chat_template\.(jinja|json))$/,
  /^(LICEN[CS]E|NOTICE|COPYING)(\.(md|txt))?$/i,
];

/** Whether an export may have written what is called so in its folder. */
export const isExported = (name: string): boolean =>
  /^onnx$|^(README|config|ssa_config|adapter_config)\.(md|json)$|\.safetensors(\.index\.json)?$|_ssa\.py$/.test(
    name,
  ) || COMPANIONS.some((pattern) => pattern.test(name));

/** The small files of a model folder that go along with its weights, sorted, config.json aside. */
export async function companionsOf(folder: string): Promise<string[]> {
  const names = await readdir(folder);
  return names.filter((name) => COMPANIONS.some((pattern) => pattern.test(name))).sort();
}

/** Copies the companions and writes the given config; a missing generation config is made from it. */
export async function writeCompanions(opened: OpenedModel, to: string, config: JsonObject) {
  const { folder: from, chatTemplate } = opened;
  for (const name of await companionsOf(from)) await copyFile(join(from, name), join(to, name));
  if (chatTemplate) await copyFile(chatTemplate, join(to, modelFiles.chatTemplate));
  await writeFileAtomic(join(to, modelFiles.config), await configText(from, config));
  const generation = join(to, modelFiles.generationConfig);
  if (existsSync(generation)) {
    await readJson(join(from, modelFiles.generationConfig)); // a damaged one is named where it lies
    return;
  }
  const ids = ["bos_token_id", "eos_token_id", "pad_token_id"].filter((key) => key in config);
  const values = Object.fromEntries(ids.map((key) => [key, config[key]]));
  await writeJson(generation, { _from_model_config: true, ...values });
}

/** Floats also in a config that comes of no text, as a GGUF file's. */
const SOFT_CAPS = ["attn_logit_softcapping", "final_logit_softcapping"];

/** As JSON in which what the source writes as 30.0 is no integer: transformers 5 takes none where it expects a float. */
async function configText(from: string, config: JsonObject): Promise<string> {
  const source = await readFile(join(from, modelFiles.config), "utf8").catch(() => "");
  const literals = source.matchAll(/"(\w+)"\s*:\s*-?\d+(?:\.0+|(?:\.\d+)?e[-+]?\d+)(?=\s*[,}])/gi);
  const floats = new Set([...SOFT_CAPS, ...Array.from(literals, ([, key]) => key!)]);
  const text = JSON.stringify(config, null, 2).replace(
    /"(\w+)": -?\d+(?=,?$)/gm,
    (pair, key: string) => (floats.has(key) ? `${pair}.0` : pair),
  );
  return `${text}\n`;
}
