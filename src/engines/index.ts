// Engines by device name, loaded when chosen.

import { UserError } from "../core/errors.ts";
import type { Engine } from "./engine.ts";

export type { Engine, Feeds, Program, Results, Weight } from "./engine.ts";

export interface EngineOptions {
  /** Threads of one operation; 0 takes the physical cores. */
  readonly threads: number;
}

/** Starts the engine of a device. */
export async function openEngine(device: string, { threads }: EngineOptions): Promise<Engine> {
  if (device !== "cpu" && device !== "auto")
    throw new UserError(`device "${device}" is not known`, { hint: "known: auto, cpu" });
  const { onnxRuntimeEngine } = await import("./onnxruntime.ts");
  return onnxRuntimeEngine({
    description: "cpu (ONNX Runtime)",
    target: { fusedMatMul: true },
    executionProviders: ["cpu"],
    threads,
  });
}
