// Starts the engine of a device and says what `auto` took and why not the others.

import { type Engine, openEngine } from "../src/engines/index.ts";

/** `say` gets one line where the choice was the program's. */
export function startEngine(
  device: string,
  threads: number,
  say: (line: string) => void,
): Promise<Engine> {
  return openEngine(device, {
    threads,
    onChoice: (reports) => {
      const others = reports
        .filter(({ isAvailable, isChosen }) => isAvailable !== null && !isChosen)
        .map(({ device, reason }) => `${device}: ${reason}`);
      const chosen = reports.find(({ isChosen }) => isChosen);
      const because = others.length > 0 ? ` (not ${others.join("; not ")})` : "";
      say(`device    ${chosen?.device}${because}`);
    },
  });
}
