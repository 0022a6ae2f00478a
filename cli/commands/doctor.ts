// `ssa doctor`: what this machine offers, and why what is missing is missing.

import { readFileSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { availableParallelism, freemem, totalmem } from "node:os";
import { join } from "node:path";
import { surveyDevices } from "../../src/engines/index.ts";
import { shared } from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import { facts, formatBytes } from "../console.ts";
import { cacheFolder, type CommandIo, print } from "../io.ts";
import { places } from "../models.ts";

const LIBRARIES = ["onnxruntime-node", "@huggingface/transformers", "hyparquet"];

export const command = defineCommand({
  options: { json: shared.json },
  examples: "Example:\n  $ ssa doctor --json > doctor.json",
  async run({ json }, io) {
    const health = await examine(io);
    print(io, json, health, () => describe(health, io.columns));
  },
});

async function examine(io: CommandIo) {
  const { cacheDir, endpoint, offline, token } = places(io).hub;
  const caches = {
    models: cacheDir,
    tokens: cacheFolder(io, "tokens"),
    exports: cacheFolder(io, "exports"),
  };
  const measured = Object.entries(caches).map(async ([name, path]) => {
    return [name, { path, sizeBytes: await sizeOf(path) }] as const;
  });
  return {
    versions: { ssa: versionIn(io.packageRoot), node: process.version, ...libraryVersions() },
    machine: {
      platform: `${process.platform} ${process.arch}`,
      cores: availableParallelism(),
      memoryBytes: totalmem(),
      freeMemoryBytes: freemem(),
    },
    devices: await surveyDevices(),
    caches: Object.fromEntries(await Promise.all(measured)),
    hub: { endpoint, offline, hasToken: token !== undefined },
  };
}

type Health = Awaited<ReturnType<typeof examine>>;

function describe({ versions, machine, devices, caches, hub }: Health, columns: number): string {
  const cached = Object.entries(caches).map(
    ([name, { path, sizeBytes }]) =>
      [`${name} cache`, `${path} (${formatBytes(sizeBytes)})`] as const,
  );
  const text = facts(
    {
      ...versions,
      machine: `${machine.platform}, ${machine.cores} cores`,
      memory: `${formatBytes(machine.memoryBytes)}, ${formatBytes(machine.freeMemoryBytes)} free`,
      hub: `${hub.endpoint}${hub.offline ? ", offline" : ""}, ${hub.hasToken ? "with" : "no"} token`,
      ...Object.fromEntries(cached),
    },
    columns,
  );
  const lines = devices.map(({ device, isChosen, isAvailable, reason, hint }) => {
    const state = isChosen ? "chosen" : isAvailable ? "available" : "unavailable";
    return `${device.padEnd(10)} ${state.padEnd(12)} ${reason}${hint ? `\n${" ".repeat(24)}${hint}` : ""}`;
  });
  return `${text}\n\ndevices\n${lines.join("\n")}`;
}

function libraryVersions(): Record<string, string> {
  const paths = createRequire(import.meta.url).resolve.paths("x") ?? [];
  const version = (name: string) => {
    for (const path of paths)
      try {
        return versionIn(join(path, name));
      } catch {
        continue;
      }
    return "not installed";
  };
  return Object.fromEntries(LIBRARIES.map((name) => [name, version(name)]));
}

function versionIn(folder: string): string {
  return (JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { version: string })
    .version;
}

/** Bytes of all files below a folder; 0 where there is none. Links are not followed. */
async function sizeOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  const sizes = entries
    .filter((entry) => entry.isFile())
    .map(async (entry) => (await stat(join(entry.parentPath, entry.name))).size);
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
