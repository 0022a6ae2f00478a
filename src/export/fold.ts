// Folds what is inserted into the weights where it can be: the export is then a plain model, which runs in any client.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { encodeFloats } from "../core/dtype.ts";
import {
  openSafetensors,
  readFloats,
  type TensorSource,
  writeSafetensors,
} from "../files/safetensors.ts";
import { weightDtype } from "../model/model.ts";
import type { Source } from "./source.ts";

/** Runs `use` on the folded source; its changed weights lie in the folder until then, so that no model fills the memory. */
export async function withFolded<Result>(
  folder: string,
  source: Source,
  use: (source: Source) => Promise<Result>,
): Promise<Result> {
  const { temperatures, ...plain } = source.opened;
  const folding = temperatures?.insertion.fold(plain.model, temperatures.values);
  if (!folding) return use(source);
  const path = join(folder, "folded.safetensors");
  const changed = [...folding.changes].map(([name, change]): TensorSource => {
    const info = plain.weights.get(name)!;
    const stored = weightDtype(info);
    const dtype = stored === "F16" || stored === "BF16" ? stored : "F32";
    const data = async function* () {
      const values = await readFloats(info);
      change(values);
      yield encodeFloats(dtype, values);
    };
    return { name, dtype, shape: info.shape, data };
  });
  await writeSafetensors(path, changed);
  const weights = new Map([...plain.weights, ...(await openSafetensors(path)).tensors]);
  const opened = { ...plain, weights, ...(folding.rest && { temperatures: folding.rest }) };
  const result = await use({ ...source, opened, hasTrainedBase: true, isFolded: true });
  await rm(path);
  return result;
}
