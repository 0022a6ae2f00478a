// Starts the engine of a device and says what `auto` took and why not the others.

import { existsSync } from "node:fs";
import {
  type Engine,
  type OnChoice,
  openEngine,
  type Provider,
  providerOf,
} from "../src/engines/index.ts";

type Say = (line: string) => void;

/** `say` gets a line for what was taken and each that was not, where the choice was the program's. */
export function startEngine(device: string, threads: number, say: Say): Promise<Engine> {
  return openEngine(device, { threads, onChoice: telling(say) });
}

/** The same for a graph that another library runs. */
export function chooseProvider(device: string, say: Say): Promise<Provider> {
  return providerOf(device, telling(say));
}

/** Where no machine of this kind has a device, nobody misses it. */
function isPlausible(device: string): boolean {
  const { platform } = process;
  // NVIDIA's driver, natively and under WSL; any GPU's.
  const hasNvidia = ["/proc/driver/nvidia/version", "/dev/dxg"].some(existsSync);
  if (device === "cuda") return platform === "linux" && hasNvidia;
  if (device === "webgpu") return platform !== "linux" || hasNvidia || existsSync("/dev/dri");
  return device !== (platform === "win32" ? "coreml" : platform === "darwin" ? "dml" : device);
}

function telling(say: Say): OnChoice {
  return (reports) => {
    for (const { device, isChosen, isAvailable, reason, hint } of reports)
      if (isChosen) say(`device    ${device}`);
      else if (isAvailable !== null && isPlausible(device))
        say(`  not ${device}: ${reason}${hint ? `; ${hint}` : ""}`);
  };
}
