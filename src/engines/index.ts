// Engines by device name: `auto` takes the fastest device that works; any other name means that device or none. Their
// programs may take turns in memory, so that a process needs room for the largest and not for all.

import { invariant, UserError } from "../core/errors.ts";
import {
  type Availability,
  type Capabilities,
  DEVICE_NAMES,
  deviceNamed,
  type Provider,
} from "./devices.ts";
import type { Engine, Program } from "./engine.ts";
import { preload } from "./onnxruntime/cuda-libraries.ts";

export type { Engine, Feeds, Program, Results, Weight } from "./engine.ts";
export type { Provider } from "./devices.ts";
export { type CudaReport, surveyCuda } from "./onnxruntime/cuda-libraries.ts";

/** Told what `auto` chose and why not the others. */
export type OnChoice = (reports: readonly DeviceReport[]) => void;

/** What was found of a device. */
export interface DeviceReport {
  readonly device: string;
  readonly isChosen: boolean;
  /** null: not looked at, since a faster one works. */
  readonly isAvailable: boolean | null;
  /** Why it was chosen or not. */
  readonly reason: string;
  /** What a user can do about a device that is not available. */
  readonly hint?: string;
}

/** What `auto` takes from, fastest first. */
const AUTO = ["cuda", "webgpu", "dml", "coreml", "cpu"];

/** Starts the engine of a device; a device that cannot serve is a UserError with the reason. */
export async function openEngine(
  name: string,
  /** Threads of one operation; 0 takes the physical cores. */
  { threads, onChoice }: { readonly threads: number; readonly onChoice?: OnChoice | undefined },
): Promise<Engine> {
  const { device, found } = await chooseDevice(name, onChoice);
  return deviceNamed(device).open(threads, found);
}

/** The provider of a device, for sessions of others than our engines. */
export async function providerOf(name: string, onChoice?: OnChoice): Promise<Provider> {
  if (name !== "auto" && !deviceNamed(name).provider)
    throw new UserError(`device ${name} cannot serve: only ONNX Runtime runs an exported model`, {
      hint: `use auto, ${AUTO.join(", ")}`,
    });
  const { device } = await chooseDevice(name, onChoice);
  return deviceNamed(device).provider!;
}

async function chooseDevice(name: string, onChoice?: OnChoice) {
  const choice = await chosenDevice(name, onChoice);
  choice.found.libraries?.forEach(preload);
  return choice;
}

async function chosenDevice(name: string, onChoice?: OnChoice) {
  if (name !== "auto") {
    const found = await deviceNamed(name).check();
    if (found.works) return { device: name, found };
    throw new UserError(`device ${name} cannot serve: ${found.reason}`, { hint: found.hint });
  }
  const { reports, chosen } = await survey(AUTO);
  onChoice?.(reports);
  invariant(chosen, "no device, not even the processor");
  return chosen;
}

/** Looks at every device, as `ssa doctor` shows; the one that `auto` takes is the chosen one. */
export async function surveyDevices(): Promise<readonly DeviceReport[]> {
  return (await survey([...new Set([...AUTO, ...DEVICE_NAMES])], true)).reports;
}

async function survey(names: readonly string[], looksAtAll = false) {
  const reports: DeviceReport[] = [];
  let chosen: { readonly device: string; readonly found: Capabilities } | undefined;
  for (const device of names) {
    const found = chosen && !looksAtAll ? null : await deviceNamed(device).check();
    const reason = whyNot(device, found) ?? (chosen && `slower than ${chosen.device}`);
    if (found?.works && !reason) chosen = { device, found };
    reports.push({
      device,
      isChosen: chosen?.device === device,
      isAvailable: found && found.works,
      reason: reason ?? "the fastest that works",
      ...(found?.works === false && { hint: found.hint }),
    });
  }
  return { reports, chosen };
}

/** Why `auto` would not take a device, whatever else there is; null was not looked at. */
function whyNot(device: string, found: Availability | null): string | undefined {
  if (!found) return undefined;
  if (!found.works) return found.reason;
  if (!AUTO.includes(device)) return "only when asked for by name";
  return found.isSoftware && device !== "cpu"
    ? "a software adapter, slower than cpu: only when asked for by name"
    : undefined;
}

/**
 * The engine, holding only the program that ran last: another's weights and activations are released first, and it is
 * compiled again when it runs. Worth it where runs come in long rows. `compile` itself shows that a program can be had.
 */
export function takingTurns(engine: Engine): Engine {
  let resident: { program: Program } | undefined;
  const release = async () => {
    const last = resident?.program;
    resident = undefined;
    await last?.dispose();
  };
  return {
    ...engine,
    compile: async (outputs, weights) => {
      const enter = async () => {
        await release();
        return (resident = { program: await engine.compile(outputs, weights) });
      };
      let own = await enter();
      return {
        run: async (feeds) => {
          if (resident !== own) own = await enter();
          return own.program.run(feeds);
        },
        dispose: async () => {
          if (resident === own) await release();
        },
      };
    },
  };
}
