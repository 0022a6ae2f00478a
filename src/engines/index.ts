// Engines by device name: `auto` takes the fastest device that works; any other name means that device or none, and
// several names several devices that work as one.

import { existsSync, readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { invariant, UserError } from "../core/errors.ts";
import { DEVICE_NAMES, deviceNamed, devicesIn } from "./devices.ts";
import type { Availability, Capabilities, Provider } from "./devices.ts";
import type { Engine } from "./engine.ts";
import { preload } from "./onnxruntime/cuda-libraries.ts";
import { pooled } from "./pool.ts";

export { DeviceError } from "./failure.ts";
export type { Engine, Feeds, Program, Results, Weight } from "./engine.ts";
export { takingTurns } from "./pool.ts";
export type { Provider } from "./devices.ts";
export { type CudaReport, surveyCuda } from "./onnxruntime/cuda-libraries.ts";

/** Told what `auto` chose and why not the others. */
export type OnChoice = (reports: readonly DeviceReport[]) => void;

export interface DeviceReport {
  readonly device: string;
  readonly isChosen: boolean;
  /** null: not looked at, since a faster one works. */
  readonly isAvailable: boolean | null;
  readonly reason: string;
  /** What a user can do about a device that is not available. */
  readonly hint?: string;
}

/** What `auto` takes from, fastest first. */
const AUTO = ["cuda", "webgpu", "dml", "coreml", "cpu"];

interface EngineOptions {
  /** Threads of one operation; 0 takes the physical cores. */
  readonly threads: number;
  readonly onChoice?: OnChoice | undefined;
  /** CUDA_VISIBLE_DEVICES. */
  readonly visibleCards?: string | undefined;
  /** Processes of one work that share this machine's cores, where each has not its own already. */
  readonly ranksHere?: number;
}

/** Starts the engine of a device; a device that cannot serve is a UserError with the reason. */
export async function openEngine(name: string, options: EngineOptions): Promise<Engine> {
  const { onChoice, visibleCards, ranksHere = 1 } = options;
  const isBound = availableParallelism() < cpus().length;
  const own = Math.max(1, Math.floor(physicalCores() / (isBound ? 1 : ranksHere)));
  const threads = options.threads || (ranksHere > 1 ? own : 0);
  const names = devicesIn(name);
  if (names.length === 1) {
    const { device, found } = await chooseDevice(name, onChoice);
    return deviceNamed(device).open(threads, found, visibleCards);
  }
  const share = Math.max(1, Math.floor((threads || physicalCores()) / names.length));
  const engines: Engine[] = [];
  try {
    for (const each of names)
      engines.push(await openEngine(each, { threads: share, visibleCards }));
  } catch (error) {
    for (const engine of engines) await engine.dispose();
    throw error;
  }
  return pooled(engines as [Engine, ...Engine[]]);
}

/** Of the threads that a processor has, those that are cores; outside Linux all count. */
function physicalCores(): number {
  const smt = "/sys/devices/system/cpu/smt/active";
  const isSmt = existsSync(smt) && readFileSync(smt, "utf8").trim() === "1";
  return availableParallelism() / (isSmt ? 2 : 1);
}

/** The provider of a device, for sessions of others than our engines. */
export async function providerOf(name: string, onChoice?: OnChoice): Promise<Provider> {
  if (devicesIn(name).length > 1)
    throw new UserError(`device ${name}: an exported model runs on one device`);
  if (name !== "auto" && !deviceNamed(name).provider)
    throw new UserError(`device ${name} cannot serve: only ONNX Runtime runs an exported model`, {
      hint: `use auto, ${AUTO.join(", ")}`,
    });
  const { device } = await chooseDevice(name, onChoice);
  return deviceNamed(device).provider!;
}

const expected = new Map<string, ReturnType<typeof chosenDevice>>();

/** Begins to look for a device, for who opens it next: that takes a process of its own, beside which there is else to do. */
export function expectDevice(name: string): void {
  if (devicesIn(name).length > 1 || expected.has(name)) return;
  const choice = chosenDevice(name);
  choice.catch(() => undefined); // told when it is opened
  expected.set(name, choice);
}

async function chooseDevice(name: string, onChoice?: OnChoice) {
  const choosing = expected.get(name) ?? chosenDevice(name);
  expected.delete(name);
  const { reports, ...choice } = await choosing;
  if (reports) onChoice?.(reports);
  choice.found.libraries?.forEach(preload);
  return choice;
}

async function chosenDevice(name: string) {
  if (name !== "auto") {
    const found = await deviceNamed(name).check();
    if (found.works) return { device: name, found, reports: null };
    throw new UserError(`device ${name} cannot serve: ${found.reason}`, { hint: found.hint });
  }
  const { reports, chosen } = await survey(AUTO);
  invariant(chosen, "no device, not even the processor");
  return { ...chosen, reports };
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
