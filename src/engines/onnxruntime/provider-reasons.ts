// Why an execution provider cannot serve, in words that say what to do: read from what ONNX Runtime and the drivers say.

import { fileURLToPath } from "node:url";
import type { SubprocessResult } from "../../core/worker.ts";
import { firstLine } from "../failure.ts";
import type { Probe } from "./probe.ts";

export interface Obstacle {
  readonly reason: string;
  readonly hint: string;
}

// Run by hand: npm 11 and later leave out install scripts, with success, unless each is approved.
const installer = new URL("../script/install.js", import.meta.resolve("onnxruntime-node"));

export const cudaNotInstalled: Obstacle = {
  reason: "ONNX Runtime's CUDA library is not installed",
  hint: `node "${fileURLToPath(installer)}" --onnxruntime-node-install`,
};

/** `$1` in a reason is its pattern's first group. */
const rules: readonly (Obstacle & { readonly pattern: RegExp })[] = [
  { pattern: /libonnxruntime_providers_(?:shared|cuda)\.so: cannot open/, ...cudaNotInstalled },
  {
    pattern: /(lib(?:cud|cublas|curand|cufft|nvrtc|nvJitLink)[\w.]*): cannot open/,
    reason: "$1 is missing",
    hint: "install CUDA 12 and cuDNN 9 and put their libraries on LD_LIBRARY_PATH",
  },
  {
    pattern: /driver version is insufficient|CUDA failure 35\b/,
    reason: "the NVIDIA driver is missing or too old for CUDA 12",
    hint: "install NVIDIA driver 525 or newer; nvidia-smi must list the GPU",
  },
  {
    pattern: /no CUDA-capable device|CUDA failure 100\b/,
    reason: "there is no NVIDIA GPU that this process may use",
    hint: "nvidia-smi must list it; in a container, start it with --gpus all",
  },
  {
    pattern: /invalid device ordinal|CUDA failure 101\b/,
    reason: "there is no GPU of that number",
    hint: "GPUs count from 0; nvidia-smi lists them",
  },
  {
    pattern: /Found no drivers|vkCreateInstance failed|load Vulkan/,
    reason: "no Vulkan driver is installed",
    hint: "install the GPU's driver with Vulkan (Debian, Ubuntu: libvulkan1 and mesa-vulkan-drivers, or NVIDIA's driver); vulkaninfo --summary must list the GPU",
  },
  {
    pattern: /No supported adapters|Failed to get a WebGPU adapter/,
    reason: "no GPU adapter was found",
    hint: "install or update the GPU's driver",
  },
  {
    pattern: /assigned to the default CPU EP/,
    reason: "it lacks kernels that training needs",
    hint: "webgpu and cpu have them all",
  },
];

/** The obstacle that a probe met, or undefined where it computed. */
export function obstacleOf({ value, stderr, ending }: SubprocessResult<Probe>) {
  if (value && value.error === undefined) return undefined;
  const said = `${value?.error ?? ""}\n${stderr}`;
  for (const { pattern, reason, hint } of rules) {
    const match = pattern.exec(said);
    if (match) return { reason: reason.replace("$1", match[1] ?? ""), hint };
  }
  if (value) return { reason: firstLine(value.error!), hint: "use another device" };
  return {
    reason: `its driver crashed or hung (${ending})`,
    hint: `update the GPU's driver, or use another device${stderr ? `; it said: ${firstLine(stderr)}` : ""}`,
  };
}
