// The kinds of what is put into a base, one row each: which tensors are theirs, and how files hold them.

import type { Shape } from "../core/shape.ts";
import type { Inserted, Insertion } from "./insertion.ts";
import { lora } from "./lora.ts";
import { temperatures } from "./temperatures.ts";

type Shapes = ReadonlyMap<string, Shape>;

interface Kind {
  /** In messages. */
  readonly word: string;
  /** Whether a checkpoint's tensor is its, by the name. */
  readonly owns: (tensor: string) => boolean;
  /** Before the names of its tensors in files. */
  readonly prefix: string;
  /** The keys of its config file that say which model it was put on: a Hugging Face id or a path. */
  readonly baseKeys: Readonly<{ name: string; revision: string; sha256?: string }>;
  /** Reads and checks its config file, whose path is for messages. */
  readonly fromJson: (path: string, json: unknown, tensors: Shapes) => Insertion;
}

/** In the order in which they become part of weights: a temperature scales what LoRA has changed. */
const kinds = { lora, temperatures } satisfies Record<string, Kind>;

export type InsertionKind = keyof typeof kinds;
export const INSERTION_KINDS = Object.keys(kinds) as InsertionKind[];

/** A row, as any row is. */
export const kindOf = (kind: InsertionKind): Kind => kinds[kind];

/** What a model has of each kind. */
export type Insertions = Readonly<Partial<Record<InsertionKind, Inserted>>>;

/** All that a model has. */
export const insertionsOf = (opened: Insertions): readonly (readonly [InsertionKind, Inserted])[] =>
  INSERTION_KINDS.flatMap((kind) => {
    const inserted = opened[kind];
    return inserted ? [[kind, inserted] as const] : [];
  });

/** The name of a tensor in a file of its kind as the graph has it. */
export const ownName = (stored: string) =>
  stored.startsWith(lora.prefix) ? stored.slice(lora.prefix.length) : stored;
