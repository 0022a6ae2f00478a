// ONNX exports that are made once and kept, named by a checksum of everything they are made from.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { convert } from "../export/convert.ts";
import { companionsOf } from "../export/model-folder.ts";
import { adapterFiles, modelFiles } from "../files/names.ts";
import { modelSha256, sha256OfFile } from "../files/safetensors.ts";
import { type OpenedModel, openModel, type OpenOptions } from "../model/open.ts";

export interface CacheOptions extends OpenOptions {
  /** As `openModel` takes it, or an ONNX export, which is used as it is. */
  readonly model: string;
  /** Where exports are kept, each in a folder named by its checksum. */
  readonly cacheFolder: string;
  /** Told what begins. */
  readonly onStage?: (stage: string) => void;
}

/** Raised when what is written changes, so that no older export is used. */
const EXPORT_VERSION = 1;

/** The folder of a model's ONNX export, made now if it is not in the cache yet. */
export async function cachedExport(options: CacheOptions): Promise<string> {
  const { model, adapter, cacheFolder, onStage } = options;
  if (!adapter && existsSync(join(model, "onnx"))) return model;
  onStage?.("looking for the model's export");
  const out = join(cacheFolder, await keyOf(await openModel(model, options)));
  const isThere = () => existsSync(join(out, modelFiles.config));
  if (isThere()) return out;
  try {
    await convert({ ...options, target: "onnx", out });
  } catch (error) {
    if (!isThere()) throw error; // else another process was faster
  }
  return out;
}

async function keyOf({ folder, checkpoint, adapter }: OpenedModel): Promise<string> {
  const hash = createHash("sha256").update(`${EXPORT_VERSION} ${await modelSha256(checkpoint)}`);
  const own = [modelFiles.config, ...(await companionsOf(folder))].map((name) =>
    join(folder, name),
  );
  const added = Object.values(adapterFiles).map((name) => join(adapter ?? "", name));
  for (const file of [...own, ...(adapter ? added.filter(existsSync) : [])])
    hash.update(` ${await sha256OfFile(file)}`);
  return hash.digest("hex").slice(0, 32);
}
