// Finds out by trying what an execution provider of ONNX Runtime can do here; called in a process of its own.

import { readdirSync, readlinkSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { type Dtype, type Precision, precisions } from "../../core/dtype.ts";
import { messageOf, orElse } from "../../core/errors.ts";
import { encode } from "../../core/protobuf.ts";
import { ONNX_TYPES, OnnxModel } from "../onnx/model.ts";
import { type CudaLibrary, examineCuda } from "./cuda-libraries.ts";

export interface Probe {
  /** Why it cannot compute; absent where it can. */
  readonly error?: string | undefined;
  readonly precisions: readonly Precision[];
  /** Whether a hardware driver is in use, judged from the files that this process holds. */
  readonly usesHardware: boolean;
  /** The files of CUDA's libraries; to be loaded, in this order, by every process that is to use the provider. */
  readonly libraries?: readonly string[];
  /** Those of CUDA's libraries that cannot be loaded. */
  readonly missing?: readonly CudaLibrary[];
}

export async function probeSession(provider: { readonly name: string }): Promise<Probe> {
  const libraries = provider.name === "cuda" ? examineCuda().libraries : [];
  const missing = libraries.filter(({ path }) => path === null);
  if (missing.length > 0)
    return { error: missing[0]!.problem!, precisions: [], usesHardware: false, missing };
  const error = await failure(doubling("F32"), provider);
  const report = process.report.getReport() as { readonly sharedObjects?: readonly string[] };
  const usesHardware = holdsHardware(process.platform, openFiles(), report.sharedObjects ?? []);
  const found: Precision[] = [];
  for (const [name, dtype] of error ? [] : (Object.entries(precisions) as [Precision, Dtype][]))
    if (!(await failure(doubling(dtype), provider))) found.push(name);
  return { error, precisions: found, usesHardware, libraries: libraries.map(({ path }) => path!) };
}

/** x + x, computed in a number format. */
function doubling(dtype: Dtype): Uint8Array {
  const model = new OnnxModel();
  model.input("x", "F32", [2]);
  model.node("Cast", ["x"], ["cast"], { to: ONNX_TYPES[dtype] });
  model.node("Add", ["cast", "cast"], ["sum"]);
  model.node("Cast", ["sum"], ["y"], { to: ONNX_TYPES.F32 });
  model.output("y", "F32", [2]);
  return encode(model.message());
}

async function failure(model: Uint8Array, provider: InferenceSession.ExecutionProviderOption) {
  try {
    const session = await InferenceSession.create(model, {
      executionProviders: [provider],
      extra: { session: { disable_cpu_ep_fallback: "1" } },
    });
    const { y } = await session.run({ x: new Tensor("float32", Float32Array.of(1, 2), [2]) });
    const [first, second] = y!.data as Float32Array;
    // Not released: the process ends soon, and what it holds is looked at first.
    return first === 2 && second === 4 ? undefined : `1 + 1 gave ${first}`;
  } catch (error) {
    return messageOf(error);
  }
}

/**
 * A driver of real hardware holds a device file (Linux) or lies in the driver store (Windows); SwiftShader, llvmpipe
 * and WARP do neither. Metal has no software device.
 */
export function holdsHardware(
  platform: string,
  files: readonly string[],
  loaded: readonly string[],
): boolean {
  const deviceFile = /^\/dev\/(dri\/|nvidia|nvhost|nvmap|nvgpu|dxg|kgsl|mali|pvr)/;
  if (platform === "linux") return files.some((file) => deviceFile.test(file));
  if (platform === "win32")
    return loaded.some((library) => /\\DriverStore\\FileRepository\\/i.test(library));
  return true;
}

/** What the process's descriptors point to, on Linux. */
function openFiles(): string[] {
  if (process.platform !== "linux") return [];
  // The listing's own descriptor is closed since.
  const fileOf = (descriptor: string) => readlinkSync(`/proc/self/fd/${descriptor}`);
  return readdirSync("/proc/self/fd").flatMap((one) => orElse(() => fileOf(one), []));
}
