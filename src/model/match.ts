// Matches what a checkpoint holds with what config.json promises: every weight is stored, in its shape, and nothing else.

import { nearest, UserError } from "../core/errors.ts";
import { formatShape, sameShape, type Shape } from "../core/shape.ts";
import type { Checkpoint, TensorInfo } from "../files/safetensors.ts";
import { kindOf } from "../insertions/kinds.ts";
import { isBlocked } from "./blocks.ts";
import type { Model } from "../models/index.ts";

const HINT = "is this the model that config.json describes?";

type IsSame = (a: TensorInfo, b: TensorInfo) => Promise<boolean>;

/** Weights and temperatures by canonical name; buffers are left out. */
export async function matchTensors(
  folder: string,
  model: Model,
  checkpoint: Checkpoint,
  isSame: IsSame,
) {
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
  if (head && embedding) await checkTied(folder, head, embedding, isSame);
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
async function checkTied(folder: string, head: TensorInfo, embedding: TensorInfo, isSame: IsSame) {
  if (head.dtype === embedding.dtype && (await isSame(head, embedding))) return;
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

export function mismatch(name: string, info: TensorInfo, expected: Shape): string[] {
  const { dtype, shape } = info;
  if (!["F64", "F32", "F16", "BF16"].includes(dtype) && !isBlocked(info))
    return [`${name} is ${dtype}, weights must be F32, F16, BF16 or F64`];
  if (sameShape(shape, expected)) return [];
  return [`${name} is ${formatShape(shape)}, expected ${formatShape(expected)}`];
}
