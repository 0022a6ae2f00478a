// CUDA on this machine: the libraries that ONNX Runtime's provider is linked to, which (asked of the loader), where they
// are, and which package has each. One that lies where the loader does not look is loaded by its path before the provider
// asks for its name: `LD_LIBRARY_PATH` is read only when a process starts.

import { execFile, execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { messageOf, orElse } from "../../core/errors.ts";
import { callInProcess } from "../../core/worker.ts";

export type CudaReport = ReturnType<typeof examineCuda>;
export type CudaLibrary = CudaReport["libraries"][number];
type Linked = readonly [file: string, path?: string];

/** Where onnxruntime-node, of which this is a file, looks for its CUDA provider: beside its own library. */
export const cudaProvider = (home = import.meta.resolve("onnxruntime-node")): string =>
  fileURLToPath(new URL("../bin/napi-v6/linux/x64/libonnxruntime_providers_cuda.so", home));

/** What onnxruntime-node's own provider is linked to; cuDNN and cuFFT it loads for ops that no graph here has. */
const linkedForCuda12: readonly Linked[] =
  "libcublasLt.so.12 libcublas.so.12 libcurand.so.10 libcudart.so.12 libcuda.so.1"
    .split(" ")
    .map((file) => [file]);

/** The packages of a library's file: the wheel's name, and that in NVIDIA's apt repository, without CUDA's version. */
const packages: Readonly<Record<string, readonly [wheel: string, apt: string]>> = {
  libcublas: ["nvidia-cublas", "libcublas"],
  libcublasLt: ["nvidia-cublas", "libcublas"],
  libcudart: ["nvidia-cuda-runtime", "cuda-cudart"],
  libcudnn: ["nvidia-cudnn", "libcudnn9-cuda"],
  libcufft: ["nvidia-cufft", "libcufft"],
  libcurand: ["nvidia-curand", "libcurand"],
  libnvJitLink: ["nvidia-nvjitlink", "libnvjitlink"],
  libnvrtc: ["nvidia-cuda-nvrtc", "cuda-nvrtc"],
};

/** What CUDA needs on this machine, found out in a process of its own; null where ONNX Runtime has no CUDA at all. */
export async function surveyCuda(): Promise<CudaReport | null> {
  if (process.platform !== "linux" || process.arch !== "x64") return null;
  const found = callInProcess<CudaReport>("./cuda-libraries", "examineCuda", null, import.meta.url);
  return (await found).value ?? null;
}

/** Loads each library into this process, from where the loader finds it, or else from where we do. */
export function examineCuda(given?: string | null) {
  const provider = given ?? cudaProvider();
  const isInstalled = existsSync(provider);
  const files = isInstalled ? linkedTo(provider) : linkedForCuda12;
  const major = /libcudart\.so\.(\d+)/.exec(files.join(" "))?.[1] ?? "12";
  let folders: readonly string[] | undefined;
  const libraries = files.map(([file, found]) => {
    let path = found ?? file;
    let problem = preload(path);
    for (const folder of problem === null ? [] : (folders ??= otherFolders())) {
      if (!existsSync(join(folder, file))) continue;
      problem = preload((path = join(folder, file)));
      if (problem === null) break;
    }
    return { file, path: problem === null ? path : null, problem, ...source(file, major) };
  });
  return { provider: isInstalled ? provider : null, libraries };
}

/** Where a library comes from; neither for what the driver brings. Any minor version serves. */
function source(file: string, major: string) {
  const [wheel = null, apt = null] = packages[file.split(".")[0]!] ?? [];
  const version = major === "12" ? "12-9" : `${major}-0`;
  // From CUDA 13 on wheels have its version no more in their name; cuDNN's have it, and its package no minor version.
  if (wheel === "nvidia-cudnn") return { wheel: `${wheel}-cu${major}`, apt: `${apt}-${major}` };
  return {
    wheel: wheel && (major === "12" ? `${wheel}-cu12` : wheel),
    apt: apt && `${apt}-${version}`,
  };
}

/** Loads a shared library for as long as the process lives; gives the loader's complaint, null where it is loaded. */
export function preload(path: string): string | null {
  // Node.js unloads what is no add-on of its own, and says so, unless the library is marked to stay (RTLD_NODELETE).
  const stays = 0x1000;
  try {
    process.dlopen({ exports: {} }, path, constants.dlopen.RTLD_NOW | stays);
    return null;
  } catch (error) {
    const complaint = messageOf(error);
    return complaint.includes("did not self-register") ? null : complaint;
  }
}

/** What the loader says that a library is linked to, and where it finds each, as `ldd` prints it. */
function linkedTo(library: string): readonly Linked[] {
  const loader = "/lib64/ld-linux-x86-64.so.2";
  const link = /(lib(?:cu|nv)\S+) => (\/.*(?= \()|not found)/g;
  const lines = said("env", ["LD_TRACE_LOADED_OBJECTS=1", loader, library]).matchAll(link);
  return [...lines].map(([, file, path]) => (path!.startsWith("/") ? [file!, path!] : [file!]));
}

/** What a program prints; nothing where it fails or is not there. */
const said = (program: string, args: readonly string[]) =>
  orElse(
    () => execFileSync(program, args, { encoding: "utf8", stdio: "pipe", timeout: 10_000 }),
    "",
  );

/** Where Python's wheels and NVIDIA's toolkit keep libraries without the loader's knowledge. */
function otherFolders(): readonly string[] {
  // Python's own list has virtual environments, what was installed for one user, and Conda.
  const script = `import sys; print("\\n".join([sys.prefix, *sys.path]))`;
  const sites = said("python3", ["-c", script]).split("\n").filter(Boolean);
  const wheels = sites.flatMap((site) => {
    const nvidia = join(site, "nvidia");
    const names = existsSync(nvidia) ? readdirSync(nvidia) : [];
    return [...names.map((name) => join(nvidia, name, "lib")), join(site, "torch", "lib")];
  });
  const toolkit = ["cuda", "cuda-13", "cuda-12", "nvidia"].map(
    (name) => `/usr/local/${name}/lib64`,
  );
  return [...wheels, ...sites.slice(0, 1).map((prefix) => join(prefix, "lib")), ...toolkit];
}

/**
 * What is free of an NVIDIA card's memory, as its driver's own tool says: in bytes, of the card of that number; undefined where nvidia-smi says nothing. It counts all cards, CUDA only those of
 * CUDA_VISIBLE_DEVICES.
 */
export async function cardFree(number = "0", visible = ""): Promise<number | undefined> {
  const card = visible.split(",")[Number(number)]?.trim() || number;
  const query = [`--id=${card}`, "--query-gpu=memory.free", "--format=csv,noheader,nounits"];
  const ask = promisify(execFile)("nvidia-smi", query, { timeout: 10_000 });
  const { stdout } = await ask.catch(() => ({ stdout: "" }));
  const mebibytes = /^\s*(\d+)\s*$/.exec(stdout)?.[1];
  return mebibytes === undefined ? undefined : Number(mebibytes) * 2 ** 20;
}
