// The engines that every kind of blocks is tried on.

import { after } from "node:test";
import { openEngine } from "../../src/engines/index.ts";
import { targets } from "../../src/engines/onnx/onnx.ts";
import { onnxRuntimeEngine } from "../../src/engines/onnxruntime/engine.ts";

export const cpu = await openEngine("cpu", { threads: 1 });
/** As if matrices were so large that they are widened by parts. */
export const byParts = onnxRuntimeEngine({
  description: "cpu",
  precisions: ["fp32"],
  target: { ...targets.cpu, castBytes: 8000 },
  provider: { name: "cpu" },
  threads: 1,
});
/** With the ops that CUDA's provider has, on the processor. */
export const asOnCuda = onnxRuntimeEngine({
  description: "cpu",
  precisions: ["fp32"],
  target: targets.cuda,
  provider: { name: "cpu" },
  threads: 1,
});
export const tfjs = await openEngine("tfjs:cpu", { threads: 1 });
after(() => Promise.all([cpu, byParts, asOnCuda, tfjs].map((engine) => engine.dispose())));
