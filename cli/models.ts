// How every command finds what is named: with the progress of its download, notes, and which device `auto` took.

import { existsSync } from "node:fs";
import { basename } from "node:path";
import type { OnChoice } from "../src/engines/index.ts";
import { hubSettings } from "../src/hub/environment.ts";
import { opening as openingIn, type Places } from "../src/model/places.ts";
import { flag } from "../src/options/values.ts";
import { formatBytes, formatInteger } from "./console.ts";
import { cacheFolder, type CommandIo } from "./io.ts";

/** For every command that takes names of the hub. */
export const refresh = flag("ask the hub what a cached branch or tag is by now");

/** Notes become lines of the progress, or what `say` makes of them. */
export function places(io: CommandIo, isFresh = false, say?: (line: string) => void): Places {
  const { progress } = io;
  const line = say ?? ((text: string) => progress.line(text));
  return {
    hub: { ...hubSettings(io.env, io.homeDir), refresh: isFresh },
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
export const opening = (io: CommandIo, isFresh: boolean) => openingIn(places(io, isFresh));

/** Where no machine of this kind has a device, nobody misses it. */
function isPlausible(device: string): boolean {
  const { platform } = process;
  // NVIDIA's driver, natively and under WSL; any GPU's.
  const hasNvidia = ["/proc/driver/nvidia/version", "/dev/dxg"].some(existsSync);
  if (device === "cuda") return platform === "linux" && hasNvidia;
  if (device === "webgpu") return platform !== "linux" || hasNvidia || existsSync("/dev/dri");
  return device !== (platform === "win32" ? "coreml" : platform === "darwin" ? "dml" : device);
}

/** `say` gets a line for what was taken and each that was not, where the choice was the program's. */
function telling(say: (line: string) => void): OnChoice {
  return (reports) => {
    for (const { device, isChosen, isAvailable, reason, hint } of reports)
      if (isChosen) say(`device    ${device}`);
      else if (isAvailable !== null && isPlausible(device))
        say(`  not ${device}: ${reason}${hint ? `; ${hint}` : ""}`);
  };
}
