// tokenizer.json and the files beside it, against the library that Python uses.

import { join } from "node:path";
import { Tokenizer as Reference } from "tokenizers";
import { loadTokenizer } from "../../../src/data/tokenizer/tokenizer.ts";
import { encode, kinds } from "../../data/tiny-tokenizers.ts";
import { expect, reading } from "../contract.ts";
import { happens, mutateBytes, mutateJson, pick } from "../mutate.ts";
import { type Files, lay, type Prepare, subject } from "../subject.ts";

const samples = [
  "The hen's eggs <|endoftext|> 12 é\n  字",
  "then, the dog. ",
  "\ud83d a\u0301\0<unk>",
];

const config = {
  bos_token: "<|endoftext|>",
  eos_token: { content: "<|endoftext|>", special: true },
  add_bos_token: true,
  added_tokens_decoder: { 0: { content: "<|endoftext|>", special: true } },
};

interface Case {
  readonly files: Files;
  /** The mutated tokenizer.json, if the reference reads all that there is. */
  readonly json: string | undefined;
  readonly untouched: string;
}

export const tokenizer: Prepare = async ({ folder }) => {
  const bases = Object.values(kinds).map(({ json }) => json as { readonly model: Model });
  const read = async () => {
    const loaded = await loadTokenizer(folder);
    const ids = samples.map((text) => [...encode(loaded, text)]);
    return { ids, around: [loaded.prefix, loaded.suffix] };
  };
  const none: Files = { "vocab.json": null, "merges.txt": null, "tokenizer_config.json": null };
  const untouched: string[] = [];
  for (const json of bases) {
    await lay(folder, { ...none, "tokenizer.json": JSON.stringify(json) });
    untouched.push(JSON.stringify(await read()));
  }
  return subject<Case>({
    mutate: (random) => {
      const base = pick(random, bases);
      const same = untouched[bases.indexOf(base)]!;
      const text = JSON.stringify(base);
      const isOld = happens(random, 0.05) && Array.isArray(base.model.merges);
      if (isOld) {
        const lines = (base.model.merges as string[][]).map((pair) => pair.join(" ")).join("\n");
        const files = {
          "tokenizer.json": null,
          "vocab.json": mutateJson(base.model.vocab, random),
          "merges.txt": happens(random, 0.5) ? mutateBytes(Buffer.from(lines), random) : lines,
        };
        return { files: { ...none, ...files }, json: undefined, untouched: same };
      }
      if (happens(random, 0.2)) {
        const files = {
          "tokenizer.json": text,
          "tokenizer_config.json": mutateJson(config, random),
        };
        return { files: { ...none, ...files }, json: undefined, untouched: same };
      }
      const isBytes = happens(random, 0.1);
      const json = isBytes
        ? mutateBytes(Buffer.from(text), random).toString()
        : happens(random, 0.5)
          ? mutateJson(base, random)
          : // The vocabulary is most of the file, and its steps are most of what can be wrong.
            mutateJson(base, random, ["model", "vocab", "merges"]);
      return { files: { ...none, "tokenizer.json": json }, json, untouched: same };
    },
    check: async ({ files, json, untouched }) => {
      await lay(folder, files);
      const found = await reading([join(folder, "")], read);
      if ("refusal" in found) return "refused";
      const { ids } = found.value;
      const expected = json === undefined ? undefined : await referenceIds(json);
      for (const [i, reference] of (expected ?? []).entries())
        expect(
          reference.join() === ids[i]!.join(),
          () =>
            `${JSON.stringify(samples[i])} is ${ids[i]!.join()}, the reference has ${reference.join()}: ${stepsOf(json!)}`,
        );
      return JSON.stringify(found.value) === untouched ? "same" : "other";
    },
  });
};

interface Model {
  readonly vocab: object;
  readonly merges?: unknown;
}

const { normalizer: table } = Object.values(kinds)
  .map(({ json }) => json as { readonly normalizer: { readonly type: string } | null })
  .find(({ normalizer }) => normalizer?.type === "Precompiled")!;

/** The reference's ids of the samples; undefined where it refuses the file. */
async function referenceIds(json: string): Promise<number[][] | undefined> {
  // A table of replacements that is damaged ends the reference's process.
  const numTables = json.split("Precompiled").length - 1;
  if (numTables > Number(json.includes(JSON.stringify(table)))) return undefined;
  try {
    const reference = Reference.fromString(json);
    const ids = [];
    for (const text of samples)
      ids.push((await reference.encode(text, null, { addSpecialTokens: false })).getIds());
    return ids;
  } catch {
    return undefined;
  }
}

function stepsOf(json: string): string {
  const { model, ...steps } = JSON.parse(json) as Record<string, unknown>;
  const { vocab: _, merges: __, ...plain } = model as Record<string, unknown>;
  return JSON.stringify({ ...steps, model: plain }).slice(0, 1500);
}
