// The small files of a model folder that go along with its weights: config, generation config, tokenizer, licence.

import { existsSync } from "node:fs";
import { copyFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../files/atomic.ts";

const COMPANIONS = [
  /^(tokenizer|tokenizer_config|special_tokens_map|added_tokens|generation_config|vocab)\.json$/,
  /^(merges\.txt|tokenizer\.model|chat_template\.(jinja|json))$/,
  /^(LICEN[CS]E|NOTICE|COPYING)(\.(md|txt))?$/i,
];

/** The companions of a model folder, sorted, config.json aside. */
export async function companionsOf(folder: string): Promise<string[]> {
  const names = await readdir(folder);
  return names.filter((name) => COMPANIONS.some((pattern) => pattern.test(name))).sort();
}

/** Copies the companions and writes the given config; a missing generation config is made from it. */
export async function writeCompanions(
  from: string,
  to: string,
  config: Readonly<Record<string, unknown>>,
): Promise<void> {
  for (const name of await companionsOf(from)) await copyFile(join(from, name), join(to, name));
  await writeJson(join(to, "config.json"), config);
  const generation = join(to, "generation_config.json");
  const ids = ["bos_token_id", "eos_token_id", "pad_token_id"].filter((key) => key in config);
  if (!existsSync(generation))
    await writeJson(generation, {
      _from_model_config: true,
      ...Object.fromEntries(ids.map((key) => [key, config[key]])),
    });
}

export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}
