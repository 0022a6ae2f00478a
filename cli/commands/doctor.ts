// `ssa doctor`: what this machine offers, and why what is missing is missing.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, totalmem } from "node:os";
import { freeMemory } from "../../src/core/memory.ts";
import { join } from "node:path";
import { type CudaReport, surveyCuda, surveyDevices } from "../../src/engines/index.ts";
import { bytesBelow } from "../../src/files/atomic.ts";
import { defineCommand } from "../command.ts";
import * as format from "../../src/core/format.ts";
import { cacheFolder, type CommandIo, isPlausible, places, print, versionIn } from "../io.ts";

const LIBRARIES = ["onnxruntime-node", "@huggingface/transformers", "hyparquet"];
/** Whose copies of models not every machine has. */
const CACHES = ["quantized", "gguf", "ranks"];

export const command = defineCommand({
  options: {},
  examples: "Example:\n  $ ssa doctor --json > doctor.json",
  async run({ json }, io) {
    const health = await examine(io);
    print(io, json, health, () => describe(health));
  },
});

async function examine(io: CommandIo) {
  const { cacheDir, endpoint, offline, token } = places(io).hub;
  const libraries = Object.fromEntries(LIBRARIES.map((name) => [name, installedVersion(name)]));
  const cache = async (path: string) => ({ path, sizeBytes: await bytesBelow(path) });
  const own = CACHES.filter((name) => existsSync(cacheFolder(io, name)));
  const sized = own.map(async (name) => [name, await cache(cacheFolder(io, name))] as const);
  return {
    versions: { ssa: versionIn(io.packageRoot), node: process.version, ...libraries },
    machine: {
      platform: `${process.platform} ${process.arch}`,
      cores: availableParallelism(),
      memoryBytes: totalmem(),
      freeMemoryBytes: freeMemory(),
    },
    devices: await surveyDevices(),
    /** The libraries of CUDA, each with its file or what it lacks; null where ONNX Runtime has no CUDA. */
    cuda: await surveyCuda(),
    caches: {
      models: await cache(cacheDir),
      tokens: await cache(cacheFolder(io, "tokens")),
      exports: await cache(cacheFolder(io, "exports")),
      ...Object.fromEntries(await Promise.all(sized)),
    },
    hub: { endpoint, offline, hasToken: token !== undefined },
  };
}

function describe(health: Awaited<ReturnType<typeof examine>>) {
  const { versions, machine, devices, cuda, caches, hub } = health;
  const cached = Object.entries(caches).map(([name, { path, sizeBytes }]) => {
    return [`${name} cache`, `${path} (${format.bytes(sizeBytes)})`] as const;
  });
  const facts = {
    ...versions,
    machine: `${machine.platform}, ${format.counted(machine.cores, "core")}`,
    memory: `${format.bytes(machine.memoryBytes)}, ${format.bytes(machine.freeMemoryBytes)} free`,
    hub: `${hub.endpoint}${hub.offline ? ", offline" : ""}, ${hub.hasToken ? "with" : "no"} token`,
    ...Object.fromEntries(cached),
  };
  const lines = devices
    .filter(({ device, isAvailable }) => isAvailable || isPlausible(device))
    .map(({ device, isChosen, isAvailable, reason, hint }) => {
      const state = isChosen ? "chosen" : isAvailable ? "available" : "unavailable";
      const advice = hint ? `\n${" ".repeat(24)}${hint}` : "";
      return `${device.padEnd(10)} ${state.padEnd(12)} ${reason}${advice}`;
    });
  const isOfUse = cuda && (cuda.provider !== null || isPlausible("cuda"));
  return [facts, ["devices", ...lines].join("\n"), isOfUse ? describeCuda(cuda) : ""];
}

function describeCuda({ provider, libraries }: CudaReport): string {
  const lines = libraries.map(({ file, path, problem, wheel, apt }) => {
    if (path !== null) return `${file.padEnd(20)} ${path}`;
    const from = wheel ? `pip install ${wheel}, or NVIDIA's apt package ${apt}` : "NVIDIA's driver";
    const state = problem!.startsWith(`${file}: cannot open`) ? "missing" : problem;
    return `${file.padEnd(20)} ${state}: ${from}`;
  });
  const of = provider ?? "ONNX Runtime's provider for CUDA 12, which is not installed";
  return `CUDA libraries of ${of}\n${lines.join("\n")}`;
}

function installedVersion(name: string): string {
  const paths = createRequire(import.meta.url).resolve.paths(name) ?? [];
  const folder = paths.map((path) => join(path, name)).find(existsSync);
  return folder === undefined ? "not installed" : versionIn(folder);
}
