// Starts the engine of a device and says what `auto` took and why not the others.

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

function telling(say: Say): OnChoice {
  return (reports) => {
    for (const { device, isChosen, isAvailable, reason } of reports)
      if (isChosen) say(`device    ${device}`);
      else if (isAvailable !== null) say(`  not ${device}: ${reason}`);
  };
}
