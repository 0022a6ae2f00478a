// From what a user calls a model to its place on this machine: a run, a folder, an embedded name, a hub id.

import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import { adapterFiles, modelFiles, runFiles } from "../files/names.ts";
import { isRun } from "../files/run-folder.ts";
import type { HubSettings } from "../hub/environment.ts";
import { resolveModel, type ResolveOptions } from "../hub/model.ts";

/** Models that ship with the package, in its checkpoints/. */
export const EMBEDDED_MODELS: readonly string[] = ["tiny-gpt2"];

/** The folder of a model by its name. */
export type ResolveName = (name: string) => Promise<string>;

/** Resolves embedded names and those of the hub; a folder that exists wins over both. */
export function modelResolver(
  settings: HubSettings,
  packageRoot: string,
  options: ResolveOptions = {},
): ResolveName {
  return async (name) =>
    EMBEDDED_MODELS.includes(name) && !existsSync(name)
      ? join(packageRoot, "checkpoints", name)
      : resolveModel(name, settings, options);
}

export interface Place {
  /** What finds the model again from anywhere. */
  readonly name: string;
  /** A run's final/, whether it is there or not; else a folder that is. */
  readonly folder: string;
  /** The run's folder. */
  readonly run?: string;
}

/** Where a model is; without a resolver only folders are known. */
export async function findPlace(name: string, resolveName?: ResolveName): Promise<Place> {
  const path = resolve(name);
  const run = [path, dirname(path)].find(
    (folder, i) => isRun(folder) && (i === 0 || basename(path) === runFiles.final),
  );
  if (run) {
    const folder = join(run, runFiles.final);
    return { name: folder, folder, run };
  }
  refuseForeign(name);
  const isHere = existsSync(name);
  if (!isHere && !resolveName) throw new UserError(`there is no folder "${name}"`);
  const folder = resolveName ? await resolveName(name) : name;
  return { name: isHere ? path : name, folder: resolve(folder) };
}

/** Names what other programs' formats are, where they are given for a model or an adapter of ours. */
export function refuseForeign(path: string): void {
  const isFolder = existsSync(path) && statSync(path).isDirectory();
  const names = isFolder ? readdirSync(path) : [path];
  if (names.includes(modelFiles.config) || names.includes(adapterFiles.weights)) return;
  if (names.includes("adapter_config.json"))
    throw new UserError(
      `${path} is an adapter of PEFT (LoRA or another), which ssa does not read`,
      {
        hint: "merge it into its base in Python, model.merge_and_unload().save_pretrained(FOLDER), and name that folder",
      },
    );
  if (existsSync(path) && names.some((name) => /\.(gguf|ggml)$/i.test(name)))
    throw new UserError(`${path} is a model in GGUF, llama.cpp's format, which ssa does not read`, {
      hint: "take the model that it was made from, in safetensors",
    });
}
