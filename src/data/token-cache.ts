// Tokenized data on disk: the SHA-256 of the rest, a line of JSON, the length of each text as uint32, all tokens.

import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { replaceFile } from "../formats/atomic.ts";
import { viewTokens, type Tokens } from "./tokens.ts";

/** What is kept: everything that reading the data again would give. */
export interface CachedCorpus {
  readonly tokens: Tokens;
  readonly lengths: readonly number[];
  readonly utf8Bytes: number | undefined;
  readonly numWords: number | undefined;
  readonly dataSha256: string;
}

interface Header extends Pick<CachedCorpus, "utf8Bytes" | "numWords" | "dataSha256"> {
  readonly formatVersion: number;
  readonly numTexts: number;
}

const formatVersion = 1;
const digestBytes = 32;

/** A cache that cannot be written is done without. */
export async function writeCache(folder: string, key: string, corpus: CachedCorpus): Promise<void> {
  const { tokens, lengths, ...facts } = corpus;
  const header: Header = { formatVersion, numTexts: lengths.length, ...facts };
  const content = [
    Buffer.from(`${JSON.stringify(header)}\n`),
    bytesOf(Uint32Array.from(lengths)),
    bytesOf(tokens),
  ];
  try {
    await mkdir(folder, { recursive: true });
    await replaceFile(pathOf(folder, key), async (file) => {
      for (const part of [digest(content), ...content]) await file.writeFile(part);
    });
  } catch (error) {
    if (!(error instanceof UserError) && !isErrno(error)) throw error;
  }
}

/** Undefined where there is nothing, or nothing sound: what is damaged is made anew. */
export async function readCache(
  folder: string,
  key: string,
  vocabSize: number,
): Promise<CachedCorpus | undefined> {
  const bytes = await readFile(pathOf(folder, key)).catch(() => undefined);
  if (!bytes || !digest([bytes.subarray(digestBytes)]).equals(bytes.subarray(0, digestBytes))) {
    return undefined;
  }
  const headerEnd = bytes.indexOf("\n", digestBytes);
  const header = JSON.parse(bytes.toString("utf8", digestBytes, headerEnd)) as Header;
  if (header.formatVersion !== formatVersion) return undefined;
  const lengthsEnd = headerEnd + 1 + 4 * header.numTexts;
  const { utf8Bytes, numWords, dataSha256 } = header;
  return {
    lengths: [...new Uint32Array(copy(bytes.subarray(headerEnd + 1, lengthsEnd)))],
    tokens: viewTokens(copy(bytes.subarray(lengthsEnd)), vocabSize),
    utf8Bytes,
    numWords,
    dataSha256,
  };
}

function pathOf(folder: string, key: string): string {
  return join(folder, `${key}.tokens`);
}

function isErrno(error: unknown): boolean {
  return error instanceof Error && "code" in error;
}

function digest(parts: readonly Uint8Array[]): Buffer {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** Views of numbers must begin at a multiple of their size, which these bytes may not. */
function copy(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}

function bytesOf({ buffer, byteOffset, byteLength }: Tokens): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
