// `ssa complete`: a shell's script, and what the script asks when Tab is pressed.

import { readdirSync } from "node:fs";
import type { Command as Commander } from "commander";
import { orElse } from "../src/core/errors.ts";
import { shippedRecipes } from "../src/options/load.ts";
import { choicesOf } from "./command.ts";

/** Gives the program the command, which answers from the program's own commands, flags and choices. */
export async function addCompletion(program: Commander, packageRoot: string): Promise<void> {
  const { default: tab } = await import("@bomb.sh/tab/commander");
  const root = tab(program);
  const typed = process.argv.at(-1)!.replace(/^--[\w-]+=/, "");
  const recipes = await shippedRecipes(packageRoot);
  // By what stands for a value in the help.
  const candidates = (value: string): readonly string[] =>
    ({ word: ["show", "copy", ...recipes], recipe: [...recipes, ...pathsLike(typed)] })[value] ??
    (/^(file|folder|model|data|run|runs|words)$/.test(value) ? pathsLike(typed) : []);
  const offering =
    (values: readonly string[]) => (complete: (value: string, about: string) => void) =>
      values.forEach((value) => complete(value, ""));
  for (const command of program.commands) {
    const { options, arguments: places } = root.commands.get(command.name()) ?? {};
    for (const flag of command.options) {
      const option = options?.get(flag.long?.slice(2) ?? "");
      const value = /[<[](\w+)/.exec(flag.flags)?.[1];
      const kind = flag.long === "--recipe" ? "recipe" : value;
      if (option && kind) option.handler = offering(choicesOf.get(flag) ?? candidates(kind));
    }
    for (const [name, place] of places ?? []) place.handler = offering(candidates(name));
  }
  // After a folder its files follow: no space between. Files are offered here, for not every script asks its shell.
  const directive = () => (root.completions.some(({ value }) => value.endsWith("/")) ? 6 : 4);
  Object.defineProperty(root, "directive", { get: directive, set() {} });
}

/** What lies where the word leads, folders with a slash; hidden ones where a dot is typed. */
function pathsLike(word: string): string[] {
  const [folder, start] = [word.replace(/[^/]*$/, ""), word.replace(/^.*\//, "")];
  const entries = orElse(() => readdirSync(folder || ".", { withFileTypes: true }), []);
  return entries
    .filter(({ name }) => name.startsWith(start || "") && (start !== "" || !name.startsWith(".")))
    .map((entry) => `${folder}${entry.name}${entry.isDirectory() ? "/" : ""}`);
}
