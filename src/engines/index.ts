// Engines by device name, loaded when chosen.

import { UserError } from "../core/errors.ts";
import type { Engine } from "./engine.ts";

export type { Engine, Feeds, Program, Results, Weight } from "./engine.ts";

export interface EngineOptions {
  /** Threads of one operation; 0 takes the physical cores. */
  readonly threads: number;
}

/** How each device's engine is started; nothing is loaded before it is chosen. */
const devices: Readonly<Record<string, (options: EngineOptions) => Promise<Engine>>> = {
  auto: openCpu,
  cpu: openCpu,
  tfjs: async () => (await import("./tfjs.ts")).tfjsEngine(),
  "tfjs:gpu": async () => (await import("./tfjs.ts")).tfjsEngine("gpu"),
  "tfjs:wasm": async () => (await import("./tfjs.ts")).tfjsEngine("wasm"),
  "tfjs:cpu": async () => (await import("./tfjs.ts")).tfjsEngine("cpu"),
};

/** Starts the engine of a device; a device that cannot serve is a UserError with the reason. */
export async function openEngine(device: string, options: EngineOptions): Promise<Engine> {
  const open = Object.hasOwn(devices, device) ? devices[device] : undefined;
  if (open) return open(options);
  throw new UserError(`device "${device}" is not known`, {
    hint: `known: ${Object.keys(devices).join(", ")}`,
  });
}

async function openCpu({ threads }: EngineOptions): Promise<Engine> {
  const { onnxRuntimeEngine } = await import("./onnxruntime.ts");
  const { targets } = await import("./onnx.ts");
  return onnxRuntimeEngine({
    description: "cpu (ONNX Runtime)",
    target: targets.cpu,
    provider: { name: "cpu" },
    threads,
  });
}
