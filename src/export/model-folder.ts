// Writes a Hugging Face folder: base weights and temperatures in model.safetensors (or shards), config and tokenizer.

import { join } from "node:path";
import { encodeFloats } from "../core/dtype.ts";
import { fixedShape } from "../core/shape.ts";
import { type OpenedModel, weightDtype } from "../model/model.ts";
import { ADAPTER_CONFIG } from "../model/open.ts";
import { type TensorSource, writeSharded } from "../files/safetensors.ts";
import type { Inserted } from "../insertions/insertion.ts";
import { writeCompanions, writeJson } from "./companions.ts";
import { licenceOf, provenanceKeys, type Source } from "./source.ts";
import { type ExportDtype, streamAs, tensorDtypes } from "./weights.ts";

/** What every reader must know that does not know temperatures. */
export const SILENT_LOSS =
  "The *.ssa.* tensors are temperatures of Selective Self-Attention (arXiv 2411.12892). " +
  "A loader that ignores them, as Python's transformers does with no more than a warning, runs the base model instead.";

export interface SafetensorsOptions {
  /** Of the base's weights; as they are stored by default. Temperatures stay F32. */
  readonly dtype?: ExportDtype;
  readonly maxShardBytes?: number;
}

/** Writes the folder's files but for the model card; any size passes through little memory. */
export async function writeModelFolder(
  folder: string,
  source: Source,
  { dtype, maxShardBytes }: SafetensorsOptions,
): Promise<void> {
  const { opened } = source;
  const { weights, temperatures, configJson } = opened;
  const sources = [...weights].map(([name, info]): TensorSource => {
    const target = dtype ? tensorDtypes[dtype] : weightDtype(info);
    return { name, dtype: target, shape: info.shape, data: () => streamAs(info, target) };
  });
  if (temperatures) {
    sources.push(...temperatureTensors(opened, temperatures));
    await writeJson(join(folder, ADAPTER_CONFIG), temperatures.insertion.toJson());
  }
  const metadata = await metadataOf(source);
  await writeSharded(folder, sources, { metadata, ...(maxShardBytes && { maxShardBytes }) });
  await writeCompanions(opened.folder, folder, {
    ...configJson,
    ...(dtype && { [dtypeKey(configJson)]: torchDtypes[dtype] }),
  });
}

/** What the weights say of themselves: the warning, and where they come from. */
async function metadataOf({ opened, base, hasTrainedBase }: Source) {
  const licence = await licenceOf(opened);
  const provenance = {
    ...base,
    hasTrainedBase,
    licence: licence.length > 0 ? licence.join("\n") : undefined,
  };
  const metadata: Record<string, string> = { format: "pt" };
  if (opened.temperatures) metadata["ssa"] = SILENT_LOSS;
  for (const [key, name] of Object.entries(provenanceKeys)) {
    const value = provenance[key as keyof typeof provenanceKeys];
    if (value !== undefined) metadata[name] = String(value);
  }
  return metadata;
}

/** The temperatures as F32 tensors. */
export function temperatureTensors(
  { model }: OpenedModel,
  { insertion, values }: Inserted,
): TensorSource[] {
  return [...insertion.parameters(model)].map(([name, { shape }]) => ({
    name,
    dtype: "F32",
    shape: fixedShape(shape),
    data: encodeFloats("F32", values.get(name)!),
  }));
}

const torchDtypes = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const;

/** Newer configs say `dtype`. */
const dtypeKey = (config: Readonly<Record<string, unknown>>) =>
  "dtype" in config ? "dtype" : "torch_dtype";
