// Opens a model folder, plain or augmented, or a base with an adapter beside it: the config is read, every tensor of
// the checkpoint is matched with the architecture's, and nothing but headers (and the temperatures) is loaded.

import { readFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { messageOf, nearest, UserError } from "../core/errors.ts";
import { formatShape, sameShape, type Shape } from "../core/shape.ts";
import {
  modelSha256,
  openSafetensors,
  readFloats,
  type Checkpoint,
  type TensorInfo,
} from "../files/safetensors.ts";
import { type Model, readModel } from "../models/index.ts";
import type { Inserted } from "../insertions/insertion.ts";
import { temperatures as temperatureKind } from "../insertions/temperatures.ts";
import type { OpenedModel } from "./model.ts";

export { type OpenedModel, countParameters, weightDtype } from "./model.ts";

export const ADAPTER_WEIGHTS = "ssa_adapter.safetensors";
export const ADAPTER_CONFIG = "ssa_config.json";

export interface OpenOptions {
  /** Folder of an adapter to put on the base. */
  readonly adapter?: string;
  /** Read no weights at all, for a model that starts from random ones: config.json is enough. */
  readonly withoutWeights?: boolean;
  /** Finds the base that an adapter names, when the adapter alone is opened; a folder. */
  readonly resolveBase?: (nameOrPath: string, revision?: string) => Promise<string>;
}

/** Opens a base folder, an augmented folder, an adapter folder (through its base), or a base with `adapter`. */
export async function openModel(folder: string, options: OpenOptions = {}): Promise<OpenedModel> {
  const isAdapter =
    !existsSync(join(folder, "config.json")) && existsSync(join(folder, ADAPTER_WEIGHTS));
  if (isAdapter && !options.adapter) {
    const { base_model_name_or_path: base, base_revision: revision } = await readJson(
      join(folder, ADAPTER_CONFIG),
    );
    if (typeof base !== "string" || !options.resolveBase)
      throw new UserError(`${folder} is an adapter and does not name its base`, {
        hint: "name both: --model BASE --adapter DIR",
      });
    const baseFolder = await options.resolveBase(
      base,
      typeof revision === "string" ? revision : undefined,
    );
    return openModel(baseFolder, { ...options, adapter: folder });
  }
  const configPath = join(folder, "config.json");
  const configJson = await readJson(configPath);
  const model = readModel(configPath, configJson);
  if (options.withoutWeights) {
    const checkpoint: Checkpoint = { files: [], tensors: new Map(), metadata: {} };
    return { folder: resolve(folder), configJson, model, checkpoint, weights: new Map() };
  }
  const checkpoint = await openSafetensors(folder);
  const { weights, temperatures: inside } = matchTensors(folder, model, checkpoint);
  const source = options.adapter
    ? (await openSafetensors(join(options.adapter, ADAPTER_WEIGHTS))).tensors
    : inside;
  if (options.adapter && inside.size > 0)
    throw new UserError(`${folder} has temperatures already; an adapter needs a plain base`);
  if (options.adapter) await checkBase(options.adapter, folder, checkpoint);
  const temperatures =
    options.adapter || inside.size > 0
      ? await readTemperatures(options.adapter ?? folder, source, model)
      : undefined;
  return {
    folder: resolve(folder),
    configJson,
    model,
    checkpoint,
    weights,
    ...(temperatures && { temperatures }),
  };
}

/** Refuses an adapter that names another base by its checksum. */
async function checkBase(adapter: string, folder: string, checkpoint: Checkpoint): Promise<void> {
  const config = await readJson(join(adapter, ADAPTER_CONFIG));
  const { base_sha256: expected, base_model_name_or_path: name } = config;
  if (expected === undefined) return;
  const found = await modelSha256(checkpoint);
  if (found !== expected)
    throw new UserError(`${adapter} was trained on another base than ${folder}`, {
      hint: `its base is ${JSON.stringify(name)} with SHA-256 ${JSON.stringify(expected)}, this one has ${found}`,
    });
}

/** A JSON object from a file; a UserError names the file if it is missing or broken. */
export async function readJson(path: string): Promise<Record<string, unknown>> {
  let content: string;
  try {
    content = await readFile(path, "utf8");
  } catch (cause) {
    throw new UserError(`cannot read ${path}: ${messageOf(cause)}`, {
      hint: "a model folder holds config.json and model.safetensors",
      cause,
    });
  }
  try {
    const json: unknown = JSON.parse(content);
    if (typeof json === "object" && json !== null && !Array.isArray(json))
      return json as Record<string, unknown>;
  } catch (cause) {
    throw new UserError(`${path} is not valid JSON: ${messageOf(cause)}`, { cause });
  }
  throw new UserError(`${path} must hold a JSON object`);
}

/** Every stored tensor is a weight, a temperature or a known buffer; every weight is stored, in its shape. */
function matchTensors(folder: string, model: Model, { tensors }: Checkpoint) {
  const weights = new Map<string, TensorInfo>();
  const temperatures = new Map<string, TensorInfo>();
  const unexpected: string[] = [];
  for (const [stored, info] of tensors) {
    const name = model.canonicalName(stored);
    if (name === null) continue;
    if (temperatureKind.owns(name)) temperatures.set(name, info);
    else if (model.weights.has(name)) weights.set(name, info);
    else if (name !== model.outputEmbedding || !model.config.isTied) unexpected.push(stored);
  }
  const head = tensors.get(model.outputEmbedding);
  if (model.config.isTied && head && !weights.has(model.inputEmbedding))
    weights.set(model.inputEmbedding, head); // a tied pair may be stored under either name

  const missing = [...model.weights.keys()].filter((name) => !weights.has(name));
  const problems = [
    ...missing.map((name) => `missing: ${name}${suggestion(name, unexpected)}`),
    ...unexpected.map((name) => `unexpected: ${name}`),
    ...[...weights].flatMap(([name, info]) => mismatch(name, info, model.weights.get(name)!)),
  ];
  if (problems.length > 0)
    throw new UserError(
      `${folder}: the tensors do not fit config.json:\n  ${firstFew(problems).join("\n  ")}`,
      { hint: "is this the model that config.json describes?" },
    );
  return { weights, temperatures };
}

function mismatch(name: string, { dtype, shape }: TensorInfo, expected: Shape): string[] {
  if (!["F64", "F32", "F16", "BF16"].includes(dtype))
    return [`${name} is ${dtype}, weights must be F32, F16, BF16 or F64`];
  return sameShape(shape, expected)
    ? []
    : [`${name} is ${formatShape(shape)}, expected ${formatShape(expected)}`];
}

const suggestion = (name: string, others: readonly string[]) => {
  const near = nearest(name, others);
  return near ? ` (is ${near} it?)` : "";
};

function firstFew(problems: readonly string[]): string[] {
  const shown = problems.slice(0, 12);
  return problems.length > shown.length
    ? [...shown, `and ${problems.length - shown.length} more`]
    : shown;
}

async function readTemperatures(
  folder: string,
  tensors: ReadonlyMap<string, TensorInfo>,
  model: Model,
): Promise<Inserted> {
  const path = join(folder, ADAPTER_CONFIG);
  const insertion = temperatureKind.fromJson(path, await readJson(path));
  const parameters = insertion.parameters(model);
  const values = new Map<string, Float32Array>();
  for (const [name, { shape }] of parameters) {
    const info = tensors.get(name);
    if (!info || !sameShape(info.shape, shape))
      throw new UserError(
        `${folder}: temperature ${name} is ${info ? formatShape(info.shape) : "missing"}, the base needs ${formatShape(shape)}`,
        { hint: "was the adapter trained on another base?" },
      );
    values.set(name, await readFloats(info));
  }
  const extra = [...tensors.keys()].find((name) => !parameters.has(name));
  if (extra)
    throw new UserError(`${folder}: unexpected temperature ${extra}, not in ${ADAPTER_CONFIG}`);
  return { insertion, values };
}
