// Matches what a checkpoint holds with what config.json promises: every weight is stored, in its shape, and nothing else.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { nearest, UserError } from "../core/errors.ts";
import { formatShape, sameShape, type Shape } from "../core/shape.ts";
import { readJson } from "../files/json.ts";
import { adapterFiles } from "../files/names.ts";
import { openSafetensors, readFloats } from "../files/safetensors.ts";
import type { Checkpoint, TensorInfo } from "../files/safetensors.ts";
import type { Inserted } from "../insertions/insertion.ts";
import { INSERTION_KINDS, kindOf, ownName } from "../insertions/kinds.ts";
import type { InsertionKind, Insertions } from "../insertions/kinds.ts";
import type { Model } from "../models/index.ts";
import { DeviationMeter, sameWeight } from "./weights.ts";

const HINT = "is this the model that config.json describes?";

/** Weights and temperatures by canonical name; buffers are left out. */
export async function matchTensors(folder: string, model: Model, checkpoint: Checkpoint) {
  const { tensors, absent } = checkpoint;
  checkLayers(folder, model, [...tensors.keys()]);
  const weights = new Map<string, TensorInfo>();
  const temperatures = new Map<string, TensorInfo>();
  const unexpected: string[] = [];
  for (const [stored, info] of tensors) {
    const name = model.canonicalName(stored);
    if (name === null) continue;
    if (kindOf("temperatures").owns(name)) temperatures.set(name, info);
    else if (model.weights.has(name)) weights.set(name, info);
    else if (name !== model.outputEmbedding || !model.config.isTied) unexpected.push(stored);
  }
  const head = model.config.isTied && tensors.get(model.outputEmbedding);
  const embedding = weights.get(model.inputEmbedding);
  if (head && embedding) await checkTied(folder, head, embedding);
  else if (head) weights.set(model.inputEmbedding, head); // a tied pair may be stored under either name

  const missing = [...model.weights.keys()].filter((name) => !weights.has(name));
  checkPrefix(folder, missing, unexpected);
  const whereabouts = (name: string): string => {
    const [place, near] = [absent.get(name), nearest(name, unexpected)];
    if (place) return ` (the index places it in ${place}, which does not hold it)`;
    return near ? ` (is ${near} it?)` : "";
  };
  const problems = [
    ...missing.map((name) => `missing: ${name}${whereabouts(name)}`),
    ...unexpected.map((name) => `unexpected: ${name}`),
    ...[...weights].flatMap(([name, info]) => mismatch(name, info, model.weights.get(name)!)),
  ];
  if (problems.length > 0) {
    const list = problems.slice(0, 12);
    if (problems.length > list.length) list.push(`and ${problems.length - list.length} more`);
    const what = `${folder}: the tensors do not fit config.json:`;
    throw new UserError([what, ...list].join("\n  "), { hint: HINT });
  }
  return { weights, temperatures };
}

/** All that the files of an adapter, or of a snapshot, hold to be inserted. */
export async function readInsertions(folder: string, model: Model): Promise<Insertions> {
  const found: Partial<Record<InsertionKind, Inserted>> = {};
  for (const kind of kindsIn(folder)) found[kind] = await readInserted(kind, folder, model);
  return found;
}

/** What a folder is an adapter of. */
export const kindsIn = (folder: string) =>
  INSERTION_KINDS.filter((kind) => existsSync(join(folder, adapterFiles[kind].weights)));

/** What the config of its kind in a folder describes, from an adapter's file or the given tensors. */
export async function readInserted(
  kind: InsertionKind,
  folder: string,
  model: Model,
  stored?: Checkpoint["tensors"],
): Promise<Inserted> {
  const { config, weights } = adapterFiles[kind];
  const { prefix, fromJson, word } = kindOf(kind);
  const file = stored ?? (await openSafetensors(join(folder, weights))).tensors;
  const named = [...file].map(([name, info]) => {
    // PEFT wraps models that others saved without their outer prefix.
    return [(prefix && model.canonicalName(ownName(name))) || name, info] as const;
  });
  const tensors = new Map(named);
  const path = join(folder, config);
  const shapes = new Map(named.map(([name, { shape }]) => [name, shape]));
  const insertion = fromJson(path, await readJson(path), shapes);
  const expected = insertion.parameters(model);
  const values = new Map<string, Float32Array>();
  for (const name of new Set([...expected.keys(), ...tensors.keys()])) {
    const [shape, info] = [expected.get(name)?.shape, tensors.get(name)];
    const [problem] =
      shape && info
        ? mismatch(name, info, shape)
        : [`${name} is ${shape ? "missing" : "unexpected"}`];
    if (problem || !info)
      throw new UserError(`${folder}: ${word.replace(/s$/, "")} ${problem}`, {
        hint: "was the adapter trained on another base?",
      });
    values.set(name, await readFloats(info));
  }
  return { insertion, values };
}

/** Before anything is made of the config: a wrong number of layers would be thousands of missing tensors. */
function checkLayers(folder: string, model: Model, stored: readonly string[]): void {
  const { numLayers } = model.config;
  const names = stored.map(model.canonicalName);
  let found = 0;
  while (names.some((name) => name?.startsWith(`${model.attentionPrefix(found)}.`))) found++;
  // Names that are all unknown are for a later message, but no model has more layers than tensors.
  if (numLayers <= (found || stored.length)) return;
  const holds = found > 0 ? `${found} layers` : `${stored.length} tensors`;
  throw new UserError(`${folder}: config.json has ${numLayers} layers, the checkpoint ${holds}`, {
    hint: HINT,
  });
}

/** A tied head that is stored as well must be the embedding, or the model has two readings. */
async function checkTied(folder: string, head: TensorInfo, embedding: TensorInfo): Promise<void> {
  if (head.dtype === embedding.dtype && (await sameWeight(head, embedding, new DeviationMeter())))
    return;
  const problem = `config.json ties the embeddings, but ${head.name} differs from ${embedding.name}`;
  throw new UserError(`${folder}: ${problem}`, {
    hint: 'set "tie_word_embeddings": false in config.json to use the stored head, or take it out of the checkpoint',
  });
}

/** Names that a wrapper has prefixed (`module.`, `_orig_mod.`) are one problem, not one for each tensor. */
function checkPrefix(folder: string, missing: readonly string[], stored: readonly string[]): void {
  const [first = ""] = missing;
  const prefix = stored.find((name) => name.endsWith(`.${first}`))?.slice(0, -first.length);
  if (!prefix || !missing.every((name) => stored.includes(prefix + name))) return;
  const problem = `all ${missing.length} tensors have "${prefix}" before their names`;
  throw new UserError(`${folder}: ${problem}`, {
    hint: "save the model inside the wrapper (torch.compile, DataParallel), or take the prefix off",
  });
}

function mismatch(name: string, { dtype, shape }: TensorInfo, expected: Shape): string[] {
  if (!["F64", "F32", "F16", "BF16"].includes(dtype))
    return [`${name} is ${dtype}, weights must be F32, F16, BF16 or F64`];
  if (sameShape(shape, expected)) return [];
  return [`${name} is ${formatShape(shape)}, expected ${formatShape(expected)}`];
}
