// The devices: whether each can serve on this machine and why not, and how its engine is opened.

import { existsSync } from "node:fs";
import type { Precision } from "../core/dtype.ts";
import { messageOf, UserError } from "../core/errors.ts";
import { callInProcess } from "../core/worker.ts";
import type { Engine } from "./engine.ts";
import { targets } from "./onnx/lowering.ts";
import type { Probe } from "./onnxruntime/probe.ts";
import { cudaNotInstalled, type Obstacle, obstacleOf } from "./onnxruntime/provider-reasons.ts";
import type { TfjsDevice } from "./tfjs/backend.ts";

export interface DeviceOptions {
  /** Threads of one operation; 0 takes the physical cores. */
  readonly threads: number;
}

export interface Capabilities {
  readonly works: true;
  /** Computed by the processor. */
  readonly isSoftware: boolean;
  readonly precisions: readonly Precision[];
}

export type Availability = Capabilities | ({ readonly works: false } & Obstacle);

/** An execution provider of ONNX Runtime and its options. */
export interface Provider {
  readonly name: string;
  readonly [option: string]: unknown;
}

export interface Device {
  /** What computes, where that is ONNX Runtime. */
  readonly provider?: Provider;
  /** Leaves this process untouched, even where a driver crashes. */
  readonly check: () => Promise<Availability>;
  readonly open: (options: DeviceOptions, capabilities: Capabilities) => Promise<Engine>;
}

const PACKAGE = "onnxruntime-node";
const CUDA_LIBRARY = "../bin/napi-v6/linux/x64/libonnxruntime_providers_cuda.so";

const devices = {
  cpu: onnxRuntime("cpu", "cpu"),
  cuda: cuda(0),
  webgpu: onnxRuntime("webgpu", "webgpu"),
  dml: dml(0),
  // COREML_FLAG_CREATE_MLPROGRAM: the newer model format, which has more ops.
  coreml: onnxRuntime("coreml", "coreml", { platforms: ["darwin"], coreMlFlags: 0x10 }),
  tfjs: tfjs(),
  "tfjs:gpu": tfjs("gpu"),
  "tfjs:wasm": tfjs("wasm"),
  "tfjs:cpu": tfjs("cpu"),
} as const satisfies Readonly<Record<string, Device>>;

export const DEVICE_NAMES = Object.keys(devices);

/** Whether `openEngine` knows the name. */
export const isDeviceName = (name: string): boolean =>
  name === "auto" || /^(cuda|dml):\d+$/.test(name) || Object.hasOwn(devices, name);

/** A device by its name, also `cuda:1` and `dml:1`, the GPU of that number; a UserError for another name. */
export function deviceNamed(name: string): Device {
  const [, kind, number] = /^(cuda|dml):(\d+)$/.exec(name) ?? [];
  if (kind) return { cuda, dml }[kind as "cuda" | "dml"](Number(number));
  if (Object.hasOwn(devices, name)) return devices[name as keyof typeof devices];
  throw new UserError(`device "${name}" is not known`, {
    hint: `known: auto, ${DEVICE_NAMES.join(", ")}`,
  });
}

function cuda(deviceId: number): Device {
  const device = onnxRuntime("cuda", deviceId ? `cuda:${deviceId}` : "cuda", {
    platforms: ["linux x64"],
    deviceId,
  });
  const isInstalled = () => existsSync(new URL(CUDA_LIBRARY, import.meta.resolve(PACKAGE)));
  return {
    ...device,
    // The usual case on Linux takes no process of its own.
    check: async () => {
      if (process.platform !== "linux" || isInstalled()) return device.check();
      return { works: false, ...cudaNotInstalled };
    },
  };
}

function dml(deviceId: number): Device {
  return onnxRuntime("dml", deviceId ? `dml:${deviceId}` : "dml", {
    platforms: ["win32 x64", "win32 arm64"],
    deviceId,
  });
}

/** A provider that does not answer within this time hangs; the first contact with a driver can take seconds. */
const PROBE_SECONDS = 60;

interface ProviderOptions {
  /** Where onnxruntime-node has the provider; everywhere by default. */
  readonly platforms?: readonly string[];
  /** The provider's own options. */
  readonly [option: string]: unknown;
}

function onnxRuntime(
  name: Exclude<keyof typeof targets, "portable">,
  label: string,
  { platforms, ...options }: ProviderOptions = {},
): Device {
  const provider = { name, ...options };
  return {
    provider,
    check: async () => {
      if (name === "cpu") return { works: true, isSoftware: true, precisions: ["fp32", "fp16"] };
      const here = [process.platform, `${process.platform} ${process.arch}`];
      if (platforms && !platforms.some((platform) => here.includes(platform))) {
        const reason = `onnxruntime-node has it only on ${platforms.join(" and ")}`;
        return { works: false, reason, hint: "webgpu serves the GPUs of every vendor" };
      }
      const outcome = await callInProcess<Probe>(
        "./onnxruntime/probe",
        "probeSession",
        provider,
        import.meta.url,
        PROBE_SECONDS,
      );
      const obstacle = obstacleOf(outcome);
      if (obstacle) return { works: false, ...obstacle };
      const { usesHardware, precisions } = outcome.value!;
      return { works: true, isSoftware: !usesHardware, precisions };
    },
    open: async ({ threads }, { isSoftware, precisions }) => {
      const { onnxRuntimeEngine } = await import("./onnxruntime/engine.ts");
      const adapter = isSoftware && name !== "cpu" ? ", software adapter" : "";
      const description = `${label} (ONNX Runtime${adapter})`;
      return onnxRuntimeEngine({
        description,
        precisions,
        target: targets[name],
        provider,
        threads,
      });
    },
  };
}

/** One backend of TensorFlow.js, or the fastest that is installed. */
function tfjs(device?: TfjsDevice): Device {
  return {
    check: async () => {
      const { loadTfjs, TFJS_DEVICES } = await import("./tfjs/backend.ts");
      const obstacles: Obstacle[] = [];
      for (const candidate of device ? [device] : TFJS_DEVICES) {
        try {
          await loadTfjs(candidate);
          return { works: true, isSoftware: candidate !== "gpu", precisions: ["fp32"] };
        } catch (error) {
          const hint = (error instanceof UserError && error.hint) || "use another device";
          obstacles.push({ reason: messageOf(error).replace(/^tfjs:\w+: /, ""), hint });
        }
      }
      return { works: false, ...obstacles[0]! };
    },
    open: async () => (await import("./tfjs/engine.ts")).tfjsEngine(device),
  };
}
