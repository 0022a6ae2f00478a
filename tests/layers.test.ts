// The architecture as a test: who may import whom, who may print, how long a file may be.
import assert from "node:assert/strict";
import { dirname, join } from "node:path/posix";
import { test } from "node:test";
import { sourceFiles } from "./source-files.ts";
import type { SourceFile } from "./source-files.ts";

/** A file imports from its own folder and from lower rows; never sideways, never up. */
const rows = [
  ["src/core"],
  ["src/files", "src/graph"],
  ["src/nn", "src/data", "src/hub"],
  ["src/insertions", "src/models", "src/engines"],
  ["src/options"],
  ["src/model"],
  ["src/train", "src/evaluate"],
  ["src/export", "src/report"],
  ["src/generate", "src/run"],
  ["src/web"],
  ["src/index.ts"],
  ["cli"],
];

/** Every third-party package, and the only places that may import it. */
const importers: Readonly<Record<string, readonly string[]>> = {
  "@bomb.sh/tab": ["cli"],
  "@huggingface/hub": ["src/hub"], // uploads
  "@huggingface/jinja": ["src/data"],
  "@huggingface/tokenizers": ["src/data"],
  "@huggingface/transformers": ["src/export", "src/generate"],
  "@observablehq/plot": ["src/report"], // in the page's bundle
  "@tensorflow/*": ["src/engines"],
  "onnxruntime-common": ["src/engines"],
  "onnxruntime-node": ["src/engines"],
  "onnxruntime-web": ["src/engines"],
  "apache-arrow": ["src/data"],
  commander: ["cli"],
  "csv-parse": ["src/data"],
  esbuild: ["src/report"], // bundles the page in a development checkout
  fzstd: ["src/data"],
  hyparquet: ["src/data"],
  "hyparquet-compressors": ["src/data"],
  koffi: ["src/engines"],
  pino: ["cli"],
  tsx: ["src/core"], // workers in a development checkout
  undici: ["src/hub"],
  "xxhash-wasm": ["src/data"],
  yaml: ["src/files", "src/options"],
  zod: ["src/data", "src/options"],
};

/** From a graph to a training step: a browser must be able to load these, and all that they import. */
const browserSafe = [
  "src/graph",
  "src/nn",
  "src/insertions",
  "src/models",
  "src/engines/onnx/onnx.ts",
  "src/files/safetensors-header.ts",
  "src/model/graph.ts",
  "src/train/loop.ts",
  "src/train/step.ts",
  "src/report/page/main.ts",
  "src/web/page/main.ts",
];

const maxLines = 300;

const files = sourceFiles("src", "cli");

function placeOf(path: string): string {
  return path === "src/index.ts" || path.startsWith("cli/")
    ? path.replace(/^cli\/.*/, "cli")
    : path.split("/").slice(0, 2).join("/");
}

function rowOf(path: string): number {
  return rows.findIndex((row) => row.includes(placeOf(path)));
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[^]*?\*\/|(?<![:"'`\w])\/\/.*/g, "");
}

interface Import {
  readonly specifier: string;
  /** Types leave no trace in the program that runs. */
  readonly isType: boolean;
}

/** What a file imports, statically, dynamically, as types, or as the script of a worker. */
function importsOf(file: SourceFile): readonly Import[] {
  const patterns = [
    /^(?:import|export)\s+(type\b)?[\w\s{},*$]*?\bfrom\s+"([^"]+)"/gm,
    /^(import)\s+"([^"]+)"/gm,
    /\b(import)\(\s*"([^"$]+)"\s*\)/g,
    /\b(new URL)\(\s*"(\.[^"]+)",\s*import\.meta\.url/g,
  ];
  const text = withoutComments(file.text);
  return patterns.flatMap((pattern) =>
    [...text.matchAll(pattern)].map(([, keyword, specifier]) => ({
      specifier: specifier!,
      isType: keyword === "type",
    })),
  );
}

/** The project's file that an import of another one names. */
function targetOf(file: SourceFile, specifier: string): string {
  return join(dirname(file.path), specifier);
}

/** The files, those in the folders, and every file that they lead to when they are loaded. */
function reachableFrom(places: readonly string[]): ReadonlySet<SourceFile> {
  const isNamed = ({ path }: SourceFile) => places.includes(path) || places.includes(placeOf(path));
  const reached = new Set(files.filter(isNamed));
  for (const file of reached)
    for (const { specifier, isType } of importsOf(file)) {
      const target = files.find(({ path }) => path === targetOf(file, specifier));
      if (target && !isType) reached.add(target);
    }
  return reached;
}

function packageOf(specifier: string): string {
  if (specifier.startsWith("@tensorflow/")) return "@tensorflow/*";
  return specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
}

/** The imports that a rule complains about, as "file -> import". */
function violations(isWrong: (file: SourceFile, imported: Import) => boolean): string[] {
  return files.flatMap((file) =>
    importsOf(file)
      .filter((imported) => isWrong(file, imported))
      .map(({ specifier }) => `${file.path} -> ${specifier}`),
  );
}

test("the source files are found, and their imports", (t) => {
  const numImports = files.reduce((sum, file) => sum + importsOf(file).length, 0);
  const arrows = new Set(
    files.flatMap((file) =>
      importsOf(file)
        .filter(({ specifier }) => specifier.startsWith("."))
        .map(({ specifier }) => [placeOf(file.path), placeOf(targetOf(file, specifier))])
        .filter(([from, to]) => from !== to)
        .map((arrow) => arrow.join(" -> ")),
    ),
  );
  t.diagnostic(`${files.length} files with ${numImports} imports checked`);
  t.diagnostic(`${rows.flat().length} rooms with ${arrows.size} arrows between them`);
  assert.ok(files.length > 0, "no source file found");
  assert.ok(numImports > 0, "no import found");
});

test("every file is in a folder of the table", () => {
  const strays = files.map((file) => file.path).filter((path) => rowOf(path) < 0);
  assert.deepEqual(strays, []);
});

test("imports stay in their folder or go down", () => {
  const wrong = violations((file, { specifier }) => {
    if (!specifier.startsWith(".")) return false;
    const target = targetOf(file, specifier);
    if (!target.startsWith("src/") && !target.startsWith("cli/")) return true;
    return placeOf(target) !== placeOf(file.path) && rowOf(target) >= rowOf(file.path);
  });
  assert.deepEqual(wrong, []);
});

test("each package has its importers, and no other", () => {
  const wrong = violations((file, { specifier }) => {
    if (specifier.startsWith(".") || specifier.startsWith("node:")) return false;
    return !importers[packageOf(specifier)]?.includes(placeOf(file.path));
  });
  assert.deepEqual(wrong, []);
});

test("what a browser runs imports nothing of Node's", () => {
  const isForBrowsers = reachableFrom(browserSafe);
  const wrong = violations(
    (file, { specifier, isType }) =>
      isForBrowsers.has(file) && specifier.startsWith("node:") && !isType,
  );
  assert.deepEqual(wrong, []);
});

test("only cli prints, exits, and reads arguments and environment", () => {
  const effect =
    /\bconsole\.\w+\(|\bprocess\.(?:argv|env|exit|exitCode|stdin|stdout|stderr|on|once|abort)\b/g;
  const wrong = files
    .filter((file) => rowOf(file.path) < rowOf("cli/"))
    .flatMap((file) =>
      [...withoutComments(file.text).matchAll(effect)].map(([use]) => `${file.path}: ${use}`),
    );
  assert.deepEqual(wrong, []);
});

test(`no file is longer than ${maxLines} lines`, () => {
  const long = files.filter((file) => file.numLines > maxLines);
  assert.deepEqual(
    long.map((file) => `${file.path}: ${file.numLines}`),
    [],
  );
});
