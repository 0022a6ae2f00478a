// Writes the temperatures alone, tens of kilobytes, with the identity of the base that they belong to.

import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS } from "../model/open.ts";
import { writeSafetensors } from "../files/safetensors.ts";
import { writeJson } from "./companions.ts";
import { temperatureTensors } from "./model-folder.ts";
import type { Source } from "./source.ts";

/** Refuses a source of which temperatures are not the whole difference from its base. */
export function checkAdapterSource({ opened, hasTrainedBase, base }: Source): void {
  if (!opened.temperatures)
    throw new UserError(
      `${opened.folder} has no temperatures, so there is nothing to put into an adapter`,
    );
  const hint = "export the whole model: --to safetensors";
  if (hasTrainedBase)
    throw new UserError(
      `${opened.folder}: more than temperatures was trained, which an adapter cannot hold`,
      { hint },
    );
  if (hasTrainedBase === undefined || base.name === undefined)
    throw new UserError(
      `${opened.folder} does not say what base its temperatures belong to, or whether more was trained`,
      { hint: `convert the folder of the run that trained it, or ${hint}` },
    );
}

/** Writes `ssa_adapter.safetensors` and `ssa_config.json` with the fields `base_*`. */
export async function writeAdapter(folder: string, { opened, base }: Source): Promise<void> {
  const temperatures = opened.temperatures!;
  await writeSafetensors(join(folder, ADAPTER_WEIGHTS), temperatureTensors(opened, temperatures));
  await writeJson(join(folder, ADAPTER_CONFIG), {
    ...temperatures.insertion.toJson(),
    base_model_name_or_path: base.name,
    ...(base.revision !== undefined && { base_revision: base.revision }),
    ...(base.sha256 !== undefined && { base_sha256: base.sha256 }),
  });
}
