// Loads TensorFlow.js for a device: `gpu` is the native package with CUDA, `wasm` and `cpu` need nothing native.

import util from "node:util";
import { messageOf, UserError } from "../../core/errors.ts";
import type { TensorFlow } from "./kernels.ts";

const VERSION = "4.22.0";

const backends = {
  gpu: { name: "tensorflow", packages: ["@tensorflow/tfjs-node-gpu"] },
  wasm: { name: "wasm", packages: ["@tensorflow/tfjs-core", "@tensorflow/tfjs-backend-wasm"] },
  cpu: { name: "cpu", packages: ["@tensorflow/tfjs-core", "@tensorflow/tfjs-backend-cpu"] },
} as const;

export type TfjsDevice = keyof typeof backends;
/** Fastest first. */
export const TFJS_DEVICES = Object.keys(backends) as TfjsDevice[];

export type TfjsBackend = Awaited<ReturnType<typeof loadTfjs>>;

const gpuFacts =
  "the native package needs Linux or Windows with CUDA 11.2 and cuDNN 8.1, and its install script downloads libtensorflow";

/** The backend of one device; without one, of the fastest that loads, and why those before it did not. */
export async function openTfjs(device?: TfjsDevice) {
  const absent: unknown[] = [];
  for (const candidate of device ? [device] : TFJS_DEVICES) {
    const backend = await loadTfjs(candidate).catch((error: unknown) => void absent.push(error));
    if (backend) return { backend, absent };
  }
  throw absent[0];
}

/** Loads one backend or fails with the reason; a GPU that TensorFlow does not use is no GPU. */
export async function loadTfjs(
  device: TfjsDevice,
  importPackage: (name: string) => Promise<unknown> = (name) => import(name),
) {
  const { name, packages } = backends[device];
  if (device === "gpu") restoreUtil(util);
  const modules: unknown[] = [];
  for (const wanted of packages)
    modules.push(
      await importPackage(wanted).catch((cause: unknown) => {
        throw cannotLoad(device, wanted, cause);
      }),
    );
  const tf = modules[0] as TensorFlow;
  tf.enableProdMode(); // no greeting on the console, no checks that the graph has had
  if (!(await tf.setBackend(name)))
    throw new UserError(`tfjs:${device}: TensorFlow.js cannot start its backend "${name}"`);
  const { isUsingGpuDevice } = tf.backend() as { isUsingGpuDevice?: boolean };
  if (device === "gpu" && !isUsingGpuDevice)
    throw new UserError("tfjs:gpu: TensorFlow finds no usable GPU and would compute on the CPU", {
      hint: `${gpuFacts}; check that their libraries are on LD_LIBRARY_PATH, or use another device`,
    });
  return { tf, device, /** In tfjs-core. */ name };
}

function cannotLoad(device: TfjsDevice, wanted: string, cause: unknown): UserError {
  const { code } = cause as { code?: string };
  const isMissing = code === "ERR_MODULE_NOT_FOUND" && messageOf(cause).includes(wanted);
  const problem = isMissing
    ? `${wanted} is not installed`
    : `${wanted} cannot be loaded: ${messageOf(cause).split("\n")[0]}`;
  const packages = backends[device].packages.map((name) => `${name}@${VERSION}`).join(" ");
  const hint = `npm install ${packages}${device === "gpu" ? ` (${gpuFacts})` : ""}`;
  return new UserError(`tfjs:${device}: ${problem}`, { hint, cause });
}

/** The native package, whose last release is older than Node 23, calls functions that Node has since dropped. */
export function restoreUtil(target: object): void {
  const legacy = target as Record<string, unknown>;
  legacy["isNullOrUndefined"] ??= (value: unknown) => value === null || value === undefined;
  legacy["isArray"] ??= Array.isArray;
}
