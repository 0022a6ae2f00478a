// How a device fails at its work, read from what engines and drivers say.

import { UserError } from "../core/errors.ts";

/** A device that failed at work that it had taken: it has no more memory for it, or it is gone. */
export class DeviceError extends UserError {
  readonly isOutOfMemory: boolean;

  constructor(message: string, isOutOfMemory = false) {
    super(message, { exitCode: 1 });
    this.isOutOfMemory = isOutOfMemory;
  }
}

/** What allocators say where there is no more room. */
const OUT_OF_MEMORY: Readonly<Record<string, RegExp>> = {
  host: /bad[ _]alloc|cannot allocate memory|allocation failed|not enough memory/i,
  arena: /failed to allocate memory|ran out of memory|is smaller than requested bytes/i,
  cuda: /out of memory|_(?:ALLOC_FAILED|OUT_OF_MEMORY)\b/i,
  // Dawn's own words, and those of Vulkan and Direct3D below it.
  webgpu: /OutOfMemory|ERROR_OUT_OF_\w*MEMORY|E_OUTOFMEMORY|8007000E|exceeds the max buffer size/i,
  tensorflow: /OOM when allocating|resource ?exhausted/i,
};

export function failureOf(said: string, engine = "ONNX Runtime"): DeviceError {
  const isOutOfMemory = Object.values(OUT_OF_MEMORY).some((pattern) => pattern.test(said));
  return new DeviceError(`${engine}: ${firstLine(said)}`, isOutOfMemory);
}

export function firstLine(text: string): string {
  const line = text.trim().split("\n")[0]!;
  return line.length > 300 ? `${line.slice(0, 300)}..` : line;
}
