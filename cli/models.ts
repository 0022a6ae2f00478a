// Models by name for every command: embedded, a folder, or from the hub with progress.

import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { hubSettings, type HubSettings } from "../src/hub/environment.ts";
import { resolveModel } from "../src/hub/model.ts";
import { parseModelName } from "../src/hub/repo-id.ts";
import { formatBytes } from "./console.ts";
import type { CommandIo } from "./io.ts";

/** Models that ship with the package, by name. */
export const EMBEDDED_MODELS = ["tiny-gpt2"] as const;

export function hubOptions({ env, homeDir }: CommandIo): HubSettings {
  return hubSettings(env, homeDir);
}

/** The folder of a model; a download shows its progress. */
export async function findModel(
  name: string,
  io: CommandIo,
  settings: HubSettings,
): Promise<string> {
  const embedded = join(io.packageRoot, "checkpoints", name);
  if ((EMBEDDED_MODELS as readonly string[]).includes(name) && !existsSync(name)) return embedded;
  try {
    const { folder } = await resolveModel(name, settings, {
      onProgress: ({ file, receivedBytes, totalBytes }) =>
        io.progress.update(
          [basename(file), `${formatBytes(receivedBytes)} of ${formatBytes(totalBytes)}`],
          totalBytes > 0 ? receivedBytes / totalBytes : undefined,
        ),
    });
    return folder;
  } finally {
    io.progress.done();
  }
}

/** Refuses, before anything is fetched, what can be no model's name. */
export function checkModel(name: string): void {
  if (!existsSync(name) && !EMBEDDED_MODELS.some((embedded) => embedded === name))
    parseModelName(name);
}

/** What to open: a folder of any kind, or a model by name, with an adapter where one is named. */
export async function findSource(
  { model, adapter }: { readonly model: string; readonly adapter?: string | undefined },
  io: CommandIo,
) {
  const settings = hubOptions(io);
  return {
    model: existsSync(model) ? model : await findModel(model, io, settings),
    ...(adapter && { adapter }),
    resolveBase: (name: string, revision?: string) =>
      findModel(revision ? `${name}@${revision}` : name, io, settings),
  };
}
