// The kinds of input that are fuzzed, one row each.

import type { Prepare } from "../subject.ts";
import { adapters } from "./adapters.ts";
import { arrow } from "./arrow.ts";
import { config } from "./config.ts";
import { ggufFiles as gguf } from "./gguf.ts";
import { hub } from "./hub.ts";
import { index } from "./index-file.ts";
import { kill } from "./kill.ts";
import { parquet } from "./parquet.ts";
import { recipes } from "./recipes.ts";
import { safetensors } from "./safetensors.ts";
import { snapshots } from "./snapshots.ts";
import { tokenizer } from "./tokenizer.ts";
import { tokens } from "./token-files.ts";

export const kinds = {
  safetensors,
  index,
  gguf,
  config,
  adapters,
  tokenizer,
  tokens,
  parquet,
  arrow,
  recipes,
  snapshots,
  hub,
  kill,
} as const satisfies Record<string, Prepare>;

export type Kind = keyof typeof kinds;
export const KINDS = Object.keys(kinds) as Kind[];
