// Engines by device name: `auto` takes the fastest device that works; any other name means that device or none.

import { UserError } from "../core/errors.ts";
import {
  type Capabilities,
  type Device,
  DEVICE_NAMES,
  deviceNamed,
  type DeviceOptions,
  type Provider,
} from "./devices.ts";
import type { Engine } from "./engine.ts";

export type { Engine, Feeds, Program, Results, Weight } from "./engine.ts";
export type { Provider } from "./devices.ts";
export { takingTurns } from "./turns.ts";

/** Told what `auto` chose and why not the others. */
export type OnChoice = (reports: readonly DeviceReport[]) => void;

export interface EngineOptions extends DeviceOptions {
  readonly onChoice?: OnChoice | undefined;
}

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
export async function openEngine(name: string, options: EngineOptions): Promise<Engine> {
  const { device, found } = await chooseDevice(name, options.onChoice);
  return device.open(options, found);
}

/** The provider of a device, for sessions of others than our engines. */
export async function providerOf(name: string, onChoice?: OnChoice): Promise<Provider> {
  if (name !== "auto" && !deviceNamed(name).provider)
    throw new UserError(`device ${name} cannot serve: only ONNX Runtime runs an exported model`, {
      hint: `use auto, ${AUTO.join(", ")}`,
    });
  const { device } = await chooseDevice(name, onChoice);
  return device.provider!;
}

async function chooseDevice(
  name: string,
  onChoice?: OnChoice,
): Promise<{ readonly device: Device; readonly found: Capabilities }> {
  if (name !== "auto") {
    const device = deviceNamed(name);
    const found = await device.check();
    if (found.works) return { device, found };
    throw new UserError(`device ${name} cannot serve: ${found.reason}`, { hint: found.hint });
  }
  const { reports, chosen } = await survey(AUTO, { stopsAtChosen: true });
  onChoice?.(reports);
  if (!chosen) throw new Error("internal: no device, not even the processor");
  return { device: deviceNamed(chosen.name), found: chosen.found };
}

/** Looks at every device, as `ssa doctor` shows; the one that `auto` takes is the chosen one. */
export async function surveyDevices(): Promise<readonly DeviceReport[]> {
  const others = DEVICE_NAMES.filter((name) => !AUTO.includes(name));
  return (await survey([...AUTO, ...others], { stopsAtChosen: false })).reports;
}

async function survey(
  names: readonly string[],
  { stopsAtChosen }: { readonly stopsAtChosen: boolean },
) {
  const reports: DeviceReport[] = [];
  let chosen: { readonly name: string; readonly found: Capabilities } | undefined;
  for (const device of names) {
    const slower = chosen && `slower than ${chosen.name}`;
    if (slower && stopsAtChosen) {
      reports.push({ device, isChosen: false, isAvailable: null, reason: slower });
      continue;
    }
    const found = await deviceNamed(device).check();
    if (!found.works) {
      const { reason, hint } = found;
      reports.push({ device, isChosen: false, isAvailable: false, reason, hint });
      continue;
    }
    const onRequest = !AUTO.includes(device)
      ? "only when asked for by name"
      : found.isSoftware &&
        device !== "cpu" &&
        "a software adapter, slower than cpu: only when asked for by name";
    const isChosen = !chosen && !onRequest;
    if (isChosen) chosen = { name: device, found };
    const reason = isChosen ? "the fastest that works" : onRequest || slower!;
    reports.push({ device, isChosen, isAvailable: true, reason });
  }
  return { reports, chosen };
}
