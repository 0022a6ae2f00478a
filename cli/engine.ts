// Says which device `auto` took and why not the others.

import { existsSync } from "node:fs";
import type { OnChoice } from "../src/engines/index.ts";

type Say = (line: string) => void;

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
export function telling(say: Say): OnChoice {
  return (reports) => {
    for (const { device, isChosen, isAvailable, reason, hint } of reports)
      if (isChosen) say(`device    ${device}`);
      else if (isAvailable !== null && isPlausible(device))
        say(`  not ${device}: ${reason}${hint ? `; ${hint}` : ""}`);
  };
}
