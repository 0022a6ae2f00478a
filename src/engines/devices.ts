// The devices: whether each can serve on this machine and why not, and how its engine is opened.

import type { Precision } from "../core/dtype.ts";
import { messageOf, UserError } from "../core/errors.ts";
import { callInProcess } from "../core/worker.ts";
import type { Engine } from "./engine.ts";
import { targets } from "./onnx/lowering.ts";
import type { Probe } from "./onnxruntime/probe.ts";
import { type Obstacle, obstacleOf, withoutProvider } from "./onnxruntime/provider-reasons.ts";
import { cardFree } from "./onnxruntime/cuda-libraries.ts";
import { openTfjs, TFJS_DEVICES, type TfjsDevice } from "./tfjs/backend.ts";

export interface Capabilities {
  readonly works: true;
  /** Computed by the processor. */
  readonly isSoftware: boolean;
  readonly precisions: readonly Precision[];
  /** Shared libraries that a process must have loaded before it uses the provider. */
  readonly libraries?: readonly string[] | undefined;
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
  readonly open: (threads: number, found: Capabilities, visibleCards?: string) => Promise<Engine>;
}

type ProviderName = Exclude<keyof typeof targets, "portable">;

/** Where onnxruntime-node has a provider, everywhere by default, and the provider's own options. */
const providers: Readonly<
  Record<ProviderName, { readonly platforms?: readonly string[]; readonly options?: object }>
> = {
  cpu: {},
  cuda: { platforms: ["linux x64"] },
  webgpu: {},
  dml: { platforms: ["win32 x64", "win32 arm64"] },
  // COREML_FLAG_CREATE_MLPROGRAM: the newer model format, which has more ops.
  coreml: { platforms: ["darwin"], options: { coreMlFlags: 0x10 } },
};

export const DEVICE_NAMES: readonly string[] = [
  ...Object.keys(providers),
  "tfjs",
  ...TFJS_DEVICES.map((name) => `tfjs:${name}`),
];

/** The devices of a list such as `cuda:0,cuda:1`. */
export const devicesIn = (name: string) => name.split(",");

/** Whether `openEngine` knows the name, or the names of a list: numbered GPUs of one kind, or the processor's parts. */
export function isDeviceName(name: string): boolean {
  const names = devicesIn(name);
  if (names.length === 1)
    return name === "auto" || /^(cuda|dml):\d+$/.test(name) || DEVICE_NAMES.includes(name);
  if (names.every((each) => each === "cpu")) return true;
  return /^((cuda|dml):\d+)(,\2:\d+)+$/.test(name) && new Set(names).size === names.length;
}

/** A device by its name, also `cuda:1` and `dml:1`, the GPU of that number; a UserError for another name. */
export function deviceNamed(name: string): Device {
  if (name === "auto" || !isDeviceName(name) || devicesIn(name).length > 1)
    throw new UserError(`device "${name}" is not known`, {
      hint: `known: auto, ${DEVICE_NAMES.join(", ")}`,
    });
  const [kind, which] = name.split(":");
  return kind === "tfjs"
    ? tfjs(which as TfjsDevice | undefined)
    : onnxRuntime(kind as ProviderName, name, which);
}

function onnxRuntime(name: ProviderName, label: string, gpu?: string): Device {
  const { platforms, options } = providers[name];
  const provider = { name, ...options, ...(gpu && { deviceId: Number(gpu) }) };
  return {
    provider,
    check: async () => {
      if (name === "cpu") return { works: true, isSoftware: true, precisions: ["fp32", "fp16"] };
      const here = [process.platform, `${process.platform} ${process.arch}`];
      if (platforms && !platforms.some((platform) => here.includes(platform))) {
        const reason = `onnxruntime-node has it only on ${platforms.join(" and ")}`;
        return { works: false, reason, hint: "webgpu serves the GPUs of every vendor" };
      }
      // The usual case on Linux takes no process of its own.
      const absence = name === "cuda" && withoutProvider();
      if (absence) return { works: false, ...absence };
      const outcome = await callInProcess<Probe>(
        "./onnxruntime/probe",
        "probeSession",
        provider,
        import.meta.url,
      );
      const obstacle = obstacleOf(outcome);
      if (obstacle) return { works: false, ...obstacle };
      const { usesHardware, precisions, libraries } = outcome.value!;
      return { works: true, isSoftware: !usesHardware, precisions, libraries };
    },
    open: async (threads, { isSoftware, precisions }, visibleCards) => {
      const { onnxRuntimeEngine } = await import("./onnxruntime/engine.ts");
      const adapter = isSoftware && name !== "cpu" ? ", software adapter" : "";
      const description = `${label} (ONNX Runtime${adapter})`;
      const target = targets[name];
      const deviceFree = name === "cuda" ? await cardFree(gpu, visibleCards) : undefined;
      return onnxRuntimeEngine({ description, precisions, target, provider, threads, deviceFree });
    },
  };
}

const tfjs = (device?: TfjsDevice): Device => ({
  check: async () => {
    try {
      const { backend } = await openTfjs(device);
      return { works: true, isSoftware: backend.device !== "gpu", precisions: ["fp32"] };
    } catch (error) {
      const hint = (error instanceof UserError && error.hint) || "use another device";
      return { works: false, reason: messageOf(error).replace(/^tfjs:\w+: /, ""), hint };
    }
  },
  open: async () => (await import("./tfjs/engine.ts")).tfjsEngine(device),
});
