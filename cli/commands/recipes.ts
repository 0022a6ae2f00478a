// `ssa recipes`: the shipped recipes, to read and to begin from.

import { writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { codeOf, UserError } from "../../src/core/errors.ts";
import { writeFailure } from "../../src/files/atomic.ts";
import { findRecipe, shippedRecipes } from "../../src/options/load.ts";
import { maybe, texts } from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import { table } from "../console.ts";
import { print } from "../io.ts";

export const command = defineCommand({
  argument: "words",
  options: { words: maybe(texts("word"), "show NAME, or copy NAME [FILE] (default: NAME.yaml)") },
  examples: `Examples:
  $ ssa recipes
  $ ssa recipes copy own-text mine.yaml`,
  async run({ words = [], json }, io) {
    const [word, name, file, ...others] = words;
    const read = async (name: string) => (await findRecipe(name, io.packageRoot)).text;
    if (word === undefined) {
      const names = await shippedRecipes(io.packageRoot);
      const describe = async (name: string) => ({ name, about: aboutOf(await read(name)) });
      const recipes = await Promise.all(names.map(describe));
      const rows = recipes.map(({ name, about }) => [name, about]);
      return print(io, json, recipes, () => [table([], rows, Infinity)]);
    }
    const isKnown = word === "show" ? !file : word === "copy" && others.length === 0;
    if (!isKnown || name === undefined)
      throw new UserError(`expected show NAME or copy NAME [FILE], found ${words.join(" ")}`);
    const text = await read(name);
    if (word === "show") return print(io, json, { name, text }, () => [text.trimEnd()]);
    const path = file ?? `${basename(name, ".yaml")}.yaml`;
    await writeFile(path, text, { flag: "wx" }).catch((error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw writeFailure(path, error);
      throw new UserError(`${path} exists and stays as it is`, { hint: "name another file" });
    });
    print(io, json, { output: path }, () => [path]);
  },
});

/** The first sentence of the first comment. */
function aboutOf(text: string): string {
  const comment = /^(?:#.*\r?\n)+/.exec(text)?.[0].split(/\r?\n#\s*\r?\n/)[0] ?? "";
  const words = comment.replace(/\r?\n?#\s*/g, " ").trim();
  return /^.*?[.?](?=\s|$)/.exec(words)?.[0] ?? words;
}
