// Tokenized data on disk: a safetensors file of all tokens and the length of each text, with a checksum.

import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, UserError } from "../../core/errors.ts";
import { openSafetensors, readBytes, writeSafetensors } from "../../files/safetensors.ts";
import { viewTokens, type Tokens } from "../tokens.ts";

/** What is kept: everything that reading the data again would give. */
export interface CachedCorpus {
  readonly tokens: Tokens;
  readonly lengths: readonly number[];
  readonly utf8Bytes: number | undefined;
  readonly numWords: number | undefined;
  readonly dataSha256: string;
}

/** A cache that cannot be written is done without. */
export async function writeCache(folder: string, key: string, corpus: CachedCorpus): Promise<void> {
  const { tokens, lengths, ...facts } = corpus;
  const json = JSON.stringify(facts);
  const [tokenBytes, lengthBytes] = [bytesOf(tokens), bytesOf(Uint32Array.from(lengths))];
  // Unsigned numbers under the names of signed ones, which every reader knows.
  const dtype = tokens.BYTES_PER_ELEMENT === 2 ? "I16" : "I32";
  const tensors = [
    { name: "tokens", dtype, shape: [tokens.length], data: tokenBytes },
    { name: "lengths", dtype: "I32", shape: [lengths.length], data: lengthBytes },
  ] as const;
  try {
    await mkdir(folder, { recursive: true });
    const metadata = { facts: json, sha256: digest(json, tokenBytes, lengthBytes) };
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
    const tokens = await readBytes(tensors.get("tokens")!);
    const lengths = await readBytes(tensors.get("lengths")!);
    const json = metadata["facts"]!;
    if (metadata["sha256"] !== digest(json, tokens, lengths)) return undefined;
    const { utf8Bytes, numWords, dataSha256 } = JSON.parse(json) as CachedCorpus;
    return {
      tokens: viewTokens(tokens.buffer as ArrayBuffer, vocabSize),
      lengths: [...new Uint32Array(lengths.buffer)],
      utf8Bytes,
      numWords,
      dataSha256,
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

function bytesOf({ buffer, byteOffset, byteLength }: Tokens): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
