// Models by name for every command: embedded, a folder, or from the hub with progress.

import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { hubSettings, type HubSettings } from "../src/hub/environment.ts";
import { resolveModel } from "../src/hub/model.ts";
import { formatBytes } from "./console.ts";
import { type CommandIo, openProgress } from "./io.ts";

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
  progress = openProgress(io),
): Promise<string> {
  const embedded = join(io.packageRoot, "checkpoints", name);
  if ((EMBEDDED_MODELS as readonly string[]).includes(name) && !existsSync(name)) return embedded;
  try {
    const { folder } = await resolveModel(name, settings, {
      onProgress: ({ file, receivedBytes, totalBytes }) =>
        progress.update(
          [basename(file), `${formatBytes(receivedBytes)} of ${formatBytes(totalBytes)}`],
          totalBytes > 0 ? receivedBytes / totalBytes : undefined,
        ),
    });
    return folder;
  } finally {
    progress.done();
  }
}
