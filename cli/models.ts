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
  const line = say ?? ((text: string) => progress.line(text));
  return {
    hub: hubOptions(io),
    cacheDir: cacheFolder(io),
    onNote: say ?? ((note) => line(`${io.style.yellow("note:")} ${note}`)),
    onProgress: (at) => {
      if (!at) return progress.done();
      if ("tokens" in at)
        return progress.update(["tokenizing", `${formatInteger(at.tokens)} tokens`]);
      const [received, total] = [at.receivedBytes, at.totalBytes];
      const fields = [basename(at.file), `${formatBytes(received)} of ${formatBytes(total)}`];
      progress.update(fields, total > 0 ? received / total : undefined);
    },
    onChoice: telling(line),
  };
}

/** The options with which a command opens a model. */
export const opening = (io: CommandIo) => openingIn(places(io));
