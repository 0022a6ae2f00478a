// What the files of an adapter, of a snapshot or of an augmented model hold to be inserted.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { readJson } from "../files/json.ts";
import { adapterFiles } from "../files/names.ts";
import { type Checkpoint, openSafetensors, readFloats } from "../files/safetensors.ts";
import type { Inserted } from "../insertions/insertion.ts";
import { INSERTION_KINDS, kindOf, ownName } from "../insertions/kinds.ts";
import type { InsertionKind, Insertions } from "../insertions/kinds.ts";
import type { Model } from "../models/index.ts";
import { mismatch } from "./match.ts";

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
