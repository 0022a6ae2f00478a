// What is inserted becomes part of the weights where it can: the export is then a plain model, which any client runs.

import { encodeFloats } from "../core/dtype.ts";
import {
  openSafetensors,
  readFloats,
  type TensorSource,
  writeSafetensors,
} from "../files/safetensors.ts";
import { type OpenedModel, weightDtype } from "../model/model.ts";

/** The model with all folded that can be, or the same object; a file at `path` then holds the changed weights, so that memory need not. */
export async function folded(opened: OpenedModel, path: string): Promise<OpenedModel> {
  const { temperatures, ...plain } = opened;
  const folding = temperatures?.insertion.fold(plain.model, temperatures.values);
  if (!folding) return opened;
  const { changes, rest } = folding;
  const changed = [...new Set(changes.map(({ name }) => name))].map((name): TensorSource => {
    const info = plain.weights.get(name)!;
    const stored = weightDtype(info);
    const dtype = stored === "F16" || stored === "BF16" ? stored : "F32";
    const data = async function* () {
      const values = await readFloats(info);
      for (const each of changes) if (each.name === name) each.change(values);
      yield encodeFloats(dtype, values);
    };
    return { name, dtype, shape: info.shape, data };
  });
  await writeSafetensors(path, changed);
  const weights = new Map([...plain.weights, ...(await openSafetensors(path)).tensors]);
  return { ...plain, weights, ...(rest && { temperatures: rest }) };
}
