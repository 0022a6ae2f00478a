// Tokenized data on disk: the tokens, where some are no targets a byte for each that says so, then as JSON all else that
// reading the data again would give, its length in four bytes, and the SHA-256 of all that. It is written as tokens come
// and read by the window, so that the data are never in memory as a whole.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { codeOf, invariant, UserError } from "../../core/errors.ts";
import { checkFile, makeFolder, replaceFile } from "../../files/atomic.ts";
import { OpenFile } from "../../files/open-file.ts";
import { hashOfFile } from "../../files/safetensors.ts";
import { CHUNK, createTokens, joined, Stretched, sum, type TokenizedText } from "../document.ts";
import type { EmitTokens, TokenLayout } from "./tokenize.ts";

/** What another version wrote is made anew. */
const cacheVersion = 7;

/** Emits tokens, and says what they are and what else is known. */
type Make<Facts> = (emit: EmitTokens) => Promise<{ layout: TokenLayout; facts: Facts }>;
type Tokenized<Facts> = Facts & { readonly texts: readonly TokenizedText[] };

/** Where tokens are kept, under all that they depend on. */
type Place = Readonly<{ folder: string; dependsOn: object }>;

/** What `make` gives. What is damaged is made anew; a cache that cannot be written is done without, in memory. */
export async function throughCache<Facts>(
  place: Place | false,
  vocabSize: number,
  make: Make<Facts>,
): Promise<Tokenized<Facts>> {
  if (!place) return inMemory(make, vocabSize);
  const basis = JSON.stringify({ cacheVersion, ...place.dependsOn });
  const name = createHash("sha256").update(basis).digest("hex");
  const path = join(place.folder, `${name}.tokens`);
  const open = () => openCache<Facts>(path, vocabSize);
  const found = await open().catch(() => undefined);
  if (found) return found;
  const failures: { making?: unknown; writing?: unknown } = {};
  const noted = (of: keyof typeof failures) => (error: unknown) => {
    failures[of] = error;
    throw error;
  };
  try {
    await makeFolder(place.folder);
    await replaceFile(path, (handle) =>
      writeCache(
        (emit) => make(emit).catch(noted("making")),
        (bytes) => handle.writeFile(bytes).catch(noted("writing")),
      ),
    );
    return await open();
  } catch (error) {
    const { making, writing } = failures;
    if (making !== undefined && making !== writing) throw making;
    if (!(error instanceof UserError) && codeOf(error) === undefined) throw error;
    return inMemory(make, vocabSize);
  }
}

async function inMemory<Facts>(make: Make<Facts>, vocabSize: number): Promise<Tokenized<Facts>> {
  const parts: Uint8Array[] = [];
  const known = await writeTokens(make, (bytes) => void parts.push(bytes));
  const all = joined((length) => new Uint8Array(length), parts);
  return textsIn((at, length) => all.subarray(at, at + length), known, vocabSize);
}

/** What is known of tokens besides: of each text how many there are, and whether some are no targets. */
type Known<Facts> = Readonly<{ lengths: readonly number[]; hasMask: boolean; facts: Facts }>;

type Append = (bytes: Uint8Array) => Promise<void> | void;

/** The tokens, then their mask. */
async function writeTokens<Facts>(make: Make<Facts>, append: Append): Promise<Known<Facts>> {
  const { layout, facts } = await make(({ buffer, byteOffset, byteLength }) =>
    append(new Uint8Array(buffer, byteOffset, byteLength)),
  );
  const hasMask = layout.unscored.length > 0;
  if (hasMask) for (const mask of masksOf(layout)) await append(mask);
  return { lengths: layout.lengths, hasMask, facts };
}

/** The texts of what `writeTokens` has written, read where it is. */
function textsIn<Facts>(
  read: (at: number, length: number) => Uint8Array,
  { lengths, hasMask, facts }: Known<Facts>,
  vocabSize: number,
): Tokenized<Facts> {
  const total = sum(lengths);
  const width = createTokens(0, vocabSize).BYTES_PER_ELEMENT;
  const tokens = new Stretched(total, (start, end) => {
    const bytes = read(width * start, width * (end - start));
    return createTokens(bytes.buffer as ArrayBuffer, vocabSize);
  });
  const isTarget = new Stretched(total, (start, end) => read(width * total + start, end - start));
  let end = 0;
  const texts = lengths.map((length) => {
    const place = [end, (end += length)] as const;
    const mask = hasMask && { isTarget: isTarget.part(...place) };
    return { tokens: tokens.part(...place), ...mask };
  });
  return { ...facts, texts };
}

async function writeCache<Facts>(make: Make<Facts>, append: Append): Promise<void> {
  const hash = createHash("sha256");
  const write: Append = (bytes) => {
    hash.update(bytes);
    return append(bytes);
  };
  const json = Buffer.from(JSON.stringify(await writeTokens(make, write)));
  await write(json);
  await write(new Uint8Array(Uint32Array.of(json.length).buffer));
  await append(hash.digest());
}

async function openCache<Facts>(path: string, vocabSize: number): Promise<Tokenized<Facts>> {
  await checkFile(path);
  const file = new OpenFile(path);
  const end = file.size - 36;
  const ending = Buffer.from(file.read(end, 36));
  const found = await hashOfFile(path, createHash("sha256"), end + 4);
  invariant(found === ending.toString("hex", 4), `${path} is damaged`);
  const length = ending.readUInt32LE(0);
  const json = Buffer.from(file.read(end - length, length)).toString();
  return textsIn((...at) => file.read(...at), JSON.parse(json) as Known<Facts>, vocabSize);
}

/** 1 for each token that is a target, some at a time. */
function* masksOf({ lengths, unscored }: TokenLayout): Generator<Uint8Array> {
  const total = sum(lengths);
  let next = 0;
  for (let start = 0; start < total; start += CHUNK) {
    const mask = new Uint8Array(Math.min(CHUNK, total - start)).fill(1);
    const end = start + mask.length;
    for (; next < unscored.length && unscored[next]! < end; next += 2) {
      mask.fill(0, Math.max(0, unscored[next]! - start), unscored[next + 1]! - start);
      if (unscored[next + 1]! > end) break;
    }
    yield mask;
  }
}
