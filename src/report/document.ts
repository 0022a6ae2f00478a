// A page as one file: style, data and script in it, and a policy under which it loads and runs nothing else.

import { createHash } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../files/atomic.ts";
import type { PageData } from "./data.ts";
import { style } from "./style.ts";

/** The bundles, made by the build; in a checkout once in a process, when one is first asked for. */
const bundled = new Map<string, Promise<string>>();

/** As scripts/build.ts does. */
async function bundle(entry: string): Promise<string> {
  if (!import.meta.filename.endsWith(".ts")) return readFile(`${entry}.min.js`, "utf8");
  const { build } = await import("esbuild");
  const how = { bundle: true, minify: true, write: false } as const;
  const made = await build({ entryPoints: [`${entry}.ts`], ...how });
  return made.outputFiles[0]!.text;
}

interface Page {
  readonly title: string;
  /** The program that draws it, without its ending. */
  readonly entry: string;
  readonly data: object;
  /** What its policy allows besides the program. */
  readonly allows: Readonly<Record<string, string>>;
}

export async function documentOf({ title, entry, data, allows }: Page): Promise<string> {
  if (!bundled.has(entry)) bundled.set(entry, bundle(entry));
  const code = (await bundled.get(entry))!;
  const hash = createHash("sha256").update(code).digest("base64");
  const { "script-src": scripts = "", ...others } = allows;
  const policy = Object.entries({
    "default-src": "'none'",
    "script-src": `'sha256-${hash}' ${scripts}`.trim(),
    "style-src": "'unsafe-inline'",
    ...others,
    "base-uri": "'none'",
    "form-action": "'none'",
  }).map((rule) => rule.join(" "));
  // What is data stays data: no text in it can end its element.
  const json = JSON.stringify(data).replaceAll("<", "\\u003c");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy.join("; ")}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${style}</style>
</head>
<body>
<main id="page"><noscript>This page draws with a script of its own, which is off here.</noscript></main>
<script type="application/json" id="data">${json}</script>
<script>${code}</script>
</body>
</html>
`;
}

const title = "ssa report";

/** Whether a file is such a page, of which only the beginning is looked at. */
export async function isPage(path: string): Promise<boolean> {
  await using handle = await open(path, "r");
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(4096));
  return buffer.subarray(0, bytesRead).includes(`<title>${title}</title>`);
}

/** A live page asks where it came from, and nobody else, for data as they come. */
export const pageOf = (data: PageData, isLive = false) =>
  documentOf({
    title,
    entry: join(import.meta.dirname, "page/main"),
    data: { ...data, isLive },
    allows: { "connect-src": isLive ? "'self'" : "'none'" },
  });

export const writePage = async (path: string, data: PageData) =>
  writeFileAtomic(path, await pageOf(data));
