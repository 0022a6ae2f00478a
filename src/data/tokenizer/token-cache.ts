// Tokenized data on disk: a safetensors file of all tokens, which of them are targets where not all are, and the length
// of each text, with a checksum.

import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, UserError } from "../../core/errors.ts";
import { openSafetensors, readBytes, writeSafetensors } from "../../files/safetensors.ts";
import { viewTokens } from "../tokens.ts";
import type { TokenizedTexts } from "./tokenize.ts";

/** Part of each key: what another version wrote is made anew. */
export const cacheVersion = 2;

/** What is kept: everything that reading the data again would give. */
export interface CachedCorpus extends TokenizedTexts {
  readonly utf8Bytes: number;
  readonly numWords: number | null;
  readonly dataSha256: string;
}

/** A cache that cannot be written is done without. */
export async function writeCache(folder: string, key: string, corpus: CachedCorpus): Promise<void> {
  const { tokens, isTarget, lengths, ...facts } = corpus;
  const json = JSON.stringify(facts);
  // Unsigned numbers under the names of signed ones, which every reader knows.
  const dtype = tokens.BYTES_PER_ELEMENT === 2 ? "I16" : "I32";
  const tensors = [
    { name: "tokens", dtype, shape: [tokens.length], data: bytesOf(tokens) },
    {
      name: "lengths",
      dtype: "I32",
      shape: [lengths.length],
      data: bytesOf(Uint32Array.from(lengths)),
    },
    ...(isTarget
      ? [{ name: "targets", dtype: "U8", shape: [isTarget.length], data: isTarget } as const]
      : []),
  ] as const;
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
    const read = async (name: string) =>
      tensors.has(name) ? [await readBytes(tensors.get(name)!)] : [];
    const [[tokens], [lengths], [isTarget]] = [
      await read("tokens"),
      await read("lengths"),
      await read("targets"),
    ];
    const parts = [tokens!, lengths!, ...(isTarget ? [isTarget] : [])];
    const json = metadata["facts"]!;
    if (metadata["sha256"] !== digest(json, ...parts)) return undefined;
    const facts = JSON.parse(json) as Omit<CachedCorpus, keyof TokenizedTexts>;
    return {
      ...facts,
      tokens: viewTokens(tokens!.buffer as ArrayBuffer, vocabSize),
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

function bytesOf({ buffer, byteOffset, byteLength }: Uint16Array | Uint32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
