// How every command opens a model: by any name, with the progress of its download.

import { existsSync } from "node:fs";
import { basename } from "node:path";
import { hubSettings, type HubSettings } from "../src/hub/environment.ts";
import { parseModelName } from "../src/hub/repo-id.ts";
import type { OpenOptions } from "../src/model/open.ts";
import { EMBEDDED_MODELS, modelResolver } from "../src/model/resolve.ts";
import { formatBytes } from "./console.ts";
import type { CommandIo } from "./io.ts";

export function hubOptions({ env, homeDir }: CommandIo): HubSettings {
  return hubSettings(env, homeDir);
}

/** Refuses, before anything is fetched, what can be no model's name. */
export function checkModel(name: string): void {
  if (!existsSync(name) && !EMBEDDED_MODELS.includes(name)) parseModelName(name);
}

/** Finds names in the package and on the hub; what the user should know becomes a note. */
export function opening(io: CommandIo) {
  const { progress } = io;
  const find = modelResolver(hubOptions(io), io.packageRoot, {
    onProgress: ({ file, receivedBytes, totalBytes }) =>
      progress.update(
        [basename(file), `${formatBytes(receivedBytes)} of ${formatBytes(totalBytes)}`],
        totalBytes > 0 ? receivedBytes / totalBytes : undefined,
      ),
  });
  return {
    resolve: (name: string) => find(name).finally(() => progress.done()),
    onNote: (note: string) => progress.line(`${io.style.yellow("note:")} ${note}`),
  } satisfies OpenOptions;
}
