// How every command finds what is named: with the progress of its download, and notes.

import { basename } from "node:path";
import { hubSettings, type HubSettings } from "../src/hub/environment.ts";
import { opening as openingIn, type Places } from "../src/model/places.ts";
import { formatBytes, formatInteger } from "./console.ts";
import { telling } from "./engine.ts";
import { cacheFolder, type CommandIo } from "./io.ts";

export function hubOptions({ env, homeDir }: CommandIo): HubSettings {
  return hubSettings(env, homeDir);
}

/** Notes become lines of the progress, or what `say` makes of them. */
export function places(io: CommandIo, say?: (line: string) => void): Places {
  const { progress } = io;
  const line = say ?? ((text) => progress.line(text));
  return {
    hub: hubOptions(io),
    cacheDir: cacheFolder(io),
    onNote: say ?? ((note) => line(`${io.style.yellow("note:")} ${note}`)),
    onProgress: (at) => {
      if (!at) progress.done();
      else if ("tokens" in at)
        progress.update(["tokenizing", `${formatInteger(at.tokens)} tokens`]);
      else {
        const { file, receivedBytes, totalBytes } = at;
        progress.update(
          [basename(file), `${formatBytes(receivedBytes)} of ${formatBytes(totalBytes)}`],
          totalBytes > 0 ? receivedBytes / totalBytes : undefined,
        );
      }
    },
    onChoice: telling(line),
  };
}

/** The options with which a command opens a model. */
export const opening = (io: CommandIo) => openingIn(places(io));
