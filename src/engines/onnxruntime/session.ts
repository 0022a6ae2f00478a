// What a session of ONNX Runtime is given, whether it runs in Node or in a web page.

import { fixedShape } from "../../core/shape.ts";
import { fewerLaunches } from "../../graph/launches.ts";
import type { Outputs, Tensor } from "../../graph/tensor.ts";
import type { LoweringTarget } from "../onnx/onnx.ts";

/**
 * How long a thread without work looks for more before it sleeps. Enough between the small operations of one run;
 * ONNX Runtime's own milliseconds take the processor from whatever else runs, a step's other threads among it.
 */
const SPIN_MICROSECONDS = "20";

type Provider = { readonly name: string };

/** ONNX Runtime's own processor, by its name in Node and in a page. */
const isHost = ({ name }: Provider) => name === "cpu" || name === "wasm";

/** In the form that the provider runs best. */
export const shapedFor = (outputs: Outputs, target: LoweringTarget) =>
  target.fewLaunches ? fewerLaunches(outputs, target) : outputs;

export interface InputFormat {
  readonly shape: readonly number[];
  readonly type: "float32" | "int64" | "int32";
}

export function formatOf({ shape, dtype }: Tensor, { int64 }: LoweringTarget): InputFormat {
  const integers = int64 ? "int64" : "int32";
  return { shape: fixedShape(shape), type: dtype === "I64" ? integers : "float32" };
}

export const sessionOptions = (provider: Provider) =>
  ({
    executionProviders: [provider],
    // The graph comes in its final form. On the CPU what ONNX Runtime would rewrite saves no time, and splits and moved
    // transposes keep values alive for longer.
    graphOptimizationLevel: isHost(provider) ? "disabled" : "all",
    // Fatal only: errors come as exceptions, and warnings would break into the progress line.
    logSeverityLevel: 4,
    // Neither saves time here, and each keeps further copies of weights or activations.
    enableMemPattern: false,
  }) as const;

/** `prepacks`: whether the matrices of products are kept in the processor's own order. */
export const sessionEntries = (provider: Provider, prepacks = false) => ({
  disable_prepacking: prepacks ? "0" : "1",
  intra_op: { spin_duration_us: SPIN_MICROSECONDS },
  ...(!isHost(provider) && { disable_cpu_ep_fallback: "1" }),
});
