// Writes a Hugging Face folder: base weights and temperatures in model.safetensors (or shards), config, and the small
// files that go along: generation config, tokenizer, licence.

import { existsSync } from "node:fs";
import { copyFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { type Precision, precisions, spellings } from "../core/dtype.ts";
import { type JsonObject, writeJson } from "../files/json.ts";
import { adapterFiles, modelFiles } from "../files/names.ts";
import { type TensorSource, writeSharded } from "../files/safetensors.ts";
import { type OpenedModel, weightDtype } from "../model/model.ts";
import { temperatureTensors } from "./adapter.ts";
import { licenceOf, type Provenance, provenanceKeys } from "./provenance.ts";
import { streamAs } from "./weights.ts";

/** What every reader must know that does not know temperatures. */
export const SILENT_LOSS =
  "The *.ssa.* tensors are temperatures of Selective Self-Attention (arXiv 2411.12892). " +
  "A loader that ignores them, as Python's transformers does with no more than a warning, runs the base model instead.";

export interface SafetensorsOptions {
  /** Of the base's weights; as they are stored by default. Temperatures stay F32. */
  readonly dtype?: Precision | undefined;
  readonly maxShardBytes?: number | undefined;
}

/** Writes the folder's files but for the model card; any size passes through little memory. */
export async function writeModelFolder(
  folder: string,
  opened: OpenedModel,
  provenance: Provenance,
  { dtype, maxShardBytes }: SafetensorsOptions = {},
): Promise<void> {
  const { weights, temperatures, configJson } = opened;
  const sources = [...weights].map(([name, info]): TensorSource => {
    const target = dtype ? precisions[dtype] : weightDtype(info);
    return { name, dtype: target, shape: info.shape, data: () => streamAs(info, target) };
  });
  if (temperatures)
    await writeJson(join(folder, adapterFiles.config), temperatures.insertion.toJson());
  const metadata = await metadataOf(opened, provenance);
  await writeSharded(folder, [...sources, ...temperatureTensors(opened)], {
    metadata,
    ...(maxShardBytes && { maxShardBytes }),
  });
  const dtypeKey = "dtype" in configJson ? "dtype" : "torch_dtype"; // the older name
  await writeCompanions(opened.folder, folder, {
    ...configJson,
    ...(dtype && { [dtypeKey]: spellings[dtype][1] }),
  });
}

/** What the weights say of themselves: the warning, and where they come from. */
async function metadataOf(opened: OpenedModel, { base, hasTrainedBase }: Provenance) {
  const licence = (await licenceOf(opened)).join("\n") || undefined;
  const values = { ...base, hasTrainedBase, licence };
  const metadata: Record<string, string> = { format: "pt" };
  if (opened.temperatures) metadata["ssa"] = SILENT_LOSS;
  for (const [key, name] of Object.entries(provenanceKeys)) {
    const value = values[key as keyof typeof provenanceKeys];
    if (value !== undefined) metadata[name] = String(value);
  }
  return metadata;
}

const COMPANIONS = [
  /^(tokenizer|tokenizer_config|special_tokens_map|added_tokens|generation_config|vocab)\.json$/,
  /^(merges\.txt|tokenizer\.model|chat_template\.(jinja|json))$/,
  /^(LICEN[CS]E|NOTICE|COPYING)(\.(md|txt))?$/i,
];

/** The small files of a model folder that go along with its weights, sorted, config.json aside. */
export async function companionsOf(folder: string): Promise<string[]> {
  const names = await readdir(folder);
  return names.filter((name) => COMPANIONS.some((pattern) => pattern.test(name))).sort();
}

/** Copies the companions and writes the given config; a missing generation config is made from it. */
export async function writeCompanions(from: string, to: string, config: JsonObject): Promise<void> {
  for (const name of await companionsOf(from)) await copyFile(join(from, name), join(to, name));
  await writeJson(join(to, modelFiles.config), config);
  const generation = join(to, modelFiles.generationConfig);
  if (existsSync(generation)) return;
  const ids = ["bos_token_id", "eos_token_id", "pad_token_id"].filter((key) => key in config);
  const values = Object.fromEntries(ids.map((key) => [key, config[key]]));
  await writeJson(generation, { _from_model_config: true, ...values });
}
