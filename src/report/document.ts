// The page as one file: style, data and script in it, and a policy under which it loads and runs nothing else.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../files/atomic.ts";
import type { PageData } from "./data.ts";
import { style } from "./style.ts";

/** The bundle, made by the build; in a checkout once in a process, when it is first asked for. */
let bundled: Promise<string> | undefined;

const isSource = import.meta.filename.endsWith(".ts");
const place = (name: string) => join(import.meta.dirname, name);

/** As package.json's build does. */
async function bundle(): Promise<string> {
  const { build } = await import("esbuild");
  const entryPoints = [place("page/main.ts")];
  const made = await build({ entryPoints, bundle: true, minify: true, write: false });
  return made.outputFiles[0]!.text;
}

/** A live page asks where it came from, and nobody else, for data as they come. */
export async function pageOf(data: PageData, isLive = false): Promise<string> {
  const code = await (bundled ??= isSource ? bundle() : readFile(place("page.min.js"), "utf8"));
  const hash = createHash("sha256").update(code).digest("base64");
  const only = `default-src 'none'; script-src 'sha256-${hash}'; style-src 'unsafe-inline'`;
  // What is data stays data: no text in it can end its element.
  const json = JSON.stringify({ ...data, isLive }).replaceAll("<", "\\u003c");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${only}; connect-src ${isLive ? "'self'" : "'none'"}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>ssa report</title>
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

export const writePage = async (path: string, data: PageData) =>
  writeFileAtomic(path, await pageOf(data));
