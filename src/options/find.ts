// Where recipes are found: a path, or the name of one that ships with the package.
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError, nearest } from "../core/errors.ts";

/** The names of the shipped recipes, sorted. */
export async function shippedRecipes(packageRoot: string): Promise<readonly string[]> {
  const files = await readdir(join(packageRoot, "recipes"));
  return files
    .filter((file) => file.endsWith(".yaml"))
    .map((file) => basename(file, ".yaml"))
    .sort();
}

/** The path of a recipe given by path (a file that exists) or by name; otherwise a UserError with the nearest name. */
export async function findRecipe(nameOrPath: string, packageRoot: string): Promise<string> {
  const isFile = await stat(nameOrPath).then(
    (entry) => entry.isFile(),
    () => false,
  );
  if (isFile) return nameOrPath;
  const shipped = await shippedRecipes(packageRoot);
  if (shipped.includes(nameOrPath)) return join(packageRoot, "recipes", `${nameOrPath}.yaml`);
  const guess = nearest(basename(nameOrPath).replace(/\.ya?ml$/, ""), shipped);
  throw new UserError(`${nameOrPath}: neither a recipe file nor the name of a shipped recipe`, {
    hint: guess ? `did you mean --recipe ${guess}?` : `shipped recipes: ${shipped.join(", ")}`,
  });
}
