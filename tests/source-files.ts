// The project's own source files, for the tests and tools that look at all of them.
import { readdirSync, readFileSync } from "node:fs";
import { join, sep } from "node:path";

export interface SourceFile {
  /** From the project's root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  readonly numLines: number;
}

/** Every TypeScript file under the folders, sorted by path. */
export function sourceFiles(...folders: readonly string[]): readonly SourceFile[] {
  const root = join(import.meta.dirname, "..");
  return folders
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
        .filter((path) => path.endsWith(".ts"))
        .map((path) => `${folder}/${path.split(sep).join("/")}`),
    )
    .sort()
    .map((path) => {
      const text = readFileSync(join(root, path), "utf8");
      return { path, text, numLines: text.split("\n").length - 1 };
    });
}
