// Starts the engine of a device and says what `auto` took and why not the others.

import {
  type Engine,
  type OnChoice,
  openEngine,
  type Provider,
  providerOf,
} from "../src/engines/index.ts";

type Say = (line: string) => void;

/** `say` gets one line where the choice was the program's. */
export function startEngine(device: string, threads: number, say: Say): Promise<Engine> {
  return openEngine(device, { threads, onChoice: telling(say) });
}

/** The same for a graph that another library runs. */
export function chooseProvider(device: string, say: Say): Promise<Provider> {
  return providerOf(device, telling(say));
}

function telling(say: Say): OnChoice {
  return (reports) => {
    const others = reports
      .filter(({ isAvailable, isChosen }) => isAvailable !== null && !isChosen)
      .map(({ device, reason }) => `${device}: ${reason}`);
    const chosen = reports.find(({ isChosen }) => isChosen);
    const because = others.length > 0 ? ` (not ${others.join("; not ")})` : "";
    say(`device    ${chosen?.device}${because}`);
  };
}
