// Tokenizing speed: a text of 10 MB through the product's own reader, first without and then with its cache.

import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadCorpus } from "../src/data/corpus.ts";
import { findDataFiles, selectSplit } from "../src/data/readers/files.ts";
import { loadTokenizer } from "../src/data/tokenizer/tokenizer.ts";

const SIZE_BYTES = 10_000_000;
const shared = (path: string) =>
  fileURLToPath(new URL(`../../shared/data/${path}`, import.meta.url));

export interface TokenizeOptions {
  /** Folder of a tokenizer; default: GPT-2's, where the shared data lie beside the repository. */
  readonly tokenizer?: string | undefined;
  /** A text, repeated up to 10 MB. */
  readonly text?: string | undefined;
}

export async function measureTokenizing(options: TokenizeOptions, threads: number) {
  const folder = options.tokenizer ?? shared("tokenizer-gpt2");
  const source = options.text ?? shared("wikitext-2/train-1mb.txt");
  if (!existsSync(folder) || !existsSync(source))
    return [{ case: "tokenize", skipped: "name --tokenizer DIR and --text FILE" }];
  const root = await mkdtemp(join(tmpdir(), "ssa-bench-"));
  try {
    const text = await readFile(source);
    const path = join(root, "text.txt");
    await writeFile(path, repeated(text, SIZE_BYTES));
    const split = selectSplit(await findDataFiles(path), "train");
    const cacheFolder = join(root, "cache");
    const times: number[] = [];
    for (let i = 0; i < 2; i++) {
      const started = performance.now();
      const tokenizer = await loadTokenizer(folder);
      await loadCorpus(split, tokenizer, { threads, cacheFolder });
      times.push((performance.now() - started) / 1000);
    }
    const [first, cached] = times as [number, number];
    return [
      {
        case: "tokenize",
        threads: Math.min(threads, availableParallelism()),
        megabytesPerSecond: SIZE_BYTES / 1e6 / first,
        firstSeconds: first,
        cachedSeconds: cached,
      },
    ];
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

function repeated(source: Uint8Array, sizeBytes: number): Uint8Array {
  const result = new Uint8Array(sizeBytes);
  for (let at = 0; at < sizeBytes; at += source.length)
    result.set(source.subarray(0, sizeBytes - at), at);
  return result;
}
