// Writes the temperatures alone, tens of kilobytes, with the identity of the base that they belong to.

import { join } from "node:path";
import { encodeFloats } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { fixedShape } from "../core/shape.ts";
import { writeJson } from "../files/json.ts";
import { adapterFiles } from "../files/names.ts";
import { type TensorSource, writeSafetensors } from "../files/safetensors.ts";
import { adapterJson, type BaseIdentity, type OpenedModel } from "../model/model.ts";
import type { Provenance } from "./provenance.ts";

/** Refuses a model of which temperatures are not the whole difference from its base. */
export function checkAdapterSource(
  { folder, temperatures }: OpenedModel,
  { hasTrainedBase, base }: Provenance,
): void {
  const whole = "export the whole model: --to safetensors";
  const refuse = (problem: string, hint?: string): never => {
    throw new UserError(`${folder}${problem}`, { hint });
  };
  if (!temperatures) refuse(" has no temperatures, so there is nothing to put into an adapter");
  if (hasTrainedBase)
    refuse(": more than temperatures was trained, which an adapter cannot hold", whole);
  if (hasTrainedBase === undefined || base.name === undefined)
    refuse(
      " does not say what base its temperatures belong to, or whether more was trained",
      `convert the folder of the run that trained it, or ${whole}`,
    );
}

/** Writes `ssa_adapter.safetensors` and `ssa_config.json` with the fields `base_*`. */
export async function writeAdapter(
  folder: string,
  opened: OpenedModel,
  base: BaseIdentity,
): Promise<void> {
  await writeSafetensors(join(folder, adapterFiles.weights), temperatureTensors(opened));
  const json = adapterJson(opened.temperatures!.insertion, base);
  await writeJson(join(folder, adapterFiles.config), json);
}

/** The temperatures as F32 tensors; none where the model has none. */
export function temperatureTensors({ model, temperatures }: OpenedModel): TensorSource[] {
  if (!temperatures) return [];
  const { insertion, values } = temperatures;
  return [...insertion.parameters(model)].map(([name, { shape }]) => ({
    name,
    dtype: "F32",
    shape: fixedShape(shape),
    data: encodeFloats("F32", values.get(name)!),
  }));
}
