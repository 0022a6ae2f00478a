// Why an execution provider cannot serve, in words that say what to do: read from what ONNX Runtime and the drivers say.

import { existsSync, readFileSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { messageOf } from "../../core/errors.ts";
import type { SubprocessResult } from "../../core/worker.ts";
import { type CudaLibrary, cudaProvider } from "./cuda-libraries.ts";
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

/** An npm package with the provider, built for CUDA 13, for where install scripts do not run. */
const CARRIER = "com.github.asus4.onnxruntime.linux-x64-gpu";

/** Why there is no CUDA provider. Where the package has that of our ONNX Runtime, it is linked, and there is one. */
export function withoutProvider(home = import.meta.resolve("onnxruntime-node")) {
  const provider = cudaProvider(home);
  if (existsSync(provider)) return undefined;
  const require = createRequire(home);
  const folder = require.resolve
    .paths(CARRIER)!
    .map((path) => join(path, CARRIER, "Plugins", "Linux", "x64"))
    .find(existsSync);
  if (folder === undefined) return cudaNotInstalled;
  const { version } = require("../package.json") as { readonly version: string };
  // The two talk to each other through tables that change from version to version.
  if (!readFileSync(join(folder, basename(provider))).includes(`\0${version}\0`))
    return {
      reason: `${CARRIER} is not for onnxruntime-node ${version}`,
      hint: `install the onnxruntime-node that its README.md names, or else: ${cudaNotInstalled.hint}`,
    };
  try {
    // Last the one whose presence is looked for.
    for (const file of ["libonnxruntime_providers_shared.so", basename(provider)])
      symlinkSync(join(folder, file), join(dirname(provider), file));
    return undefined;
  } catch (error) {
    const reason = `ONNX Runtime's CUDA library cannot be linked: ${messageOf(error)}`;
    return { reason, hint: `ln -s "${folder}"/*_{shared,cuda}.so "${dirname(provider)}"` };
  }
}

const driverMissing: Obstacle = {
  reason: "the NVIDIA driver is missing or too old",
  hint: "install NVIDIA driver 525 or newer for CUDA 12, 580 for CUDA 13; nvidia-smi must list the GPU",
};

/** `$1` in a reason is its pattern's first group. */
const rules: readonly (Obstacle & { readonly pattern: RegExp })[] = [
  { pattern: /libonnxruntime_providers_(?:shared|cuda)\.so: cannot open/, ...cudaNotInstalled },
  {
    pattern: /(lib(?:cud|cublas|curand|cufft|nvrtc|nvJitLink)[\w.]*): cannot open/,
    reason: "$1 is missing",
    hint: "install it, and name its folder in SSA_CUDA_PATH where it is not found; ssa doctor lists all",
  },
  { pattern: /driver version is insufficient|CUDA failure 35\b/, ...driverMissing },
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
  if (value?.missing) return lacking(value.missing);
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

/** What to install where CUDA's libraries are missing; without the driver, that comes first. */
function lacking(libraries: readonly CudaLibrary[]): Obstacle {
  const wheels = [...new Set(libraries.flatMap(({ wheel }) => wheel ?? []))];
  if (libraries.some(({ wheel }) => wheel === null)) return driverMissing;
  return {
    reason: `CUDA's ${libraries.map(({ file }) => file).join(", ")} cannot be loaded`,
    hint: `pip install ${wheels.join(" ")}, or name the folders in SSA_CUDA_PATH`,
  };
}
