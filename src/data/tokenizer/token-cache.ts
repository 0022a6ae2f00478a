// Tokenized data on disk: a safetensors file of all tokens, which of them are targets where not all are, and the length
// of each text, with a checksum.

import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Dtype } from "../../core/dtype.ts";
import { codeOf, UserError } from "../../core/errors.ts";
import { openSafetensors, readBytes, writeSafetensors } from "../../files/safetensors.ts";
import { createTokens, type Tokens } from "../tokens.ts";
import type { TokenizedTexts } from "./tokenize.ts";

/** Part of each key: what another version wrote is made anew. */
export const cacheVersion = 4;

/** What is kept: everything that reading the data again would give. */
export interface CachedCorpus extends TokenizedTexts {
  readonly utf8Bytes: number;
  readonly numWords: number | null;
  /** Rows that were left out. */
  readonly numSkipped: number;
  readonly dataSha256: string;
}

/** A cache that cannot be written is done without. */
export async function writeCache(folder: string, key: string, corpus: CachedCorpus): Promise<void> {
  const { tokens, isTarget, lengths, ...facts } = corpus;
  const json = JSON.stringify(facts);
  // Unsigned numbers under the names of signed ones, which every reader knows.
  const tensors = [
    tensor("tokens", tokens.BYTES_PER_ELEMENT === 2 ? "I16" : "I32", tokens),
    tensor("lengths", "I32", Uint32Array.from(lengths)),
    ...(isTarget ? [tensor("targets", "U8", isTarget)] : []),
  ];
  try {
    await mkdir(folder, { recursive: true });
    const metadata = { facts: json, sha256: digest(json, ...tensors.map(({ data }) => data)) };
    await writeSafetensors(pathOf(folder, key), tensors, metadata);
  } catch (error) {
    if (!(error instanceof UserError) && codeOf(error) === undefined) throw error;
  }
}

/** Undefined where there is nothing, or nothing sound: what is damaged is made anew. */
export async function readCache(
  folder: string,
  key: string,
  vocabSize: number,
): Promise<CachedCorpus | undefined> {
  try {
    const { tensors, metadata } = await openSafetensors(pathOf(folder, key));
    const parts = [];
    for (const name of ["tokens", "lengths", ...(tensors.has("targets") ? ["targets"] : [])])
      parts.push(await readBytes(tensors.get(name)!));
    const [tokens, lengths, isTarget] = parts;
    const json = metadata["facts"]!;
    if (metadata["sha256"] !== digest(json, ...parts)) return undefined;
    const facts = JSON.parse(json) as Omit<CachedCorpus, keyof TokenizedTexts>;
    return {
      ...facts,
      tokens: createTokens(tokens!.buffer as ArrayBuffer, vocabSize),
      ...(isTarget && { isTarget }),
      lengths: [...new Uint32Array(lengths!.buffer)],
    };
  } catch {
    return undefined;
  }
}

function pathOf(folder: string, key: string): string {
  return join(folder, `${key}.tokens`);
}

function digest(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}

function tensor(name: string, dtype: Dtype, values: Tokens | Uint8Array) {
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { name, dtype, shape: [values.length], data };
}
