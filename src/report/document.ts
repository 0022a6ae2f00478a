// The page as one file: style, data and script in it, and a policy under which it loads and runs nothing else.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { writeFileAtomic } from "../files/atomic.ts";
import type { PageData } from "./data.ts";
import { style } from "./style.ts";

/** The one bundle, made by the build; in a checkout once in a process, when it is first asked for. */
let bundled: Promise<string> | undefined;

const script = () => (bundled ??= import.meta.filename.endsWith(".ts") ? bundle() : built());

const built = () => readFile(fileURLToPath(new URL("page.min.js", import.meta.url)), "utf8");

/** As package.json's build does. */
async function bundle(): Promise<string> {
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("page/main.ts", import.meta.url))],
    bundle: true,
    minify: true,
    write: false,
  });
  return outputFiles[0]!.text;
}

/** What is data stays data: no text in it can end its element. */
export const embedded = (data: unknown) => JSON.stringify(data).replaceAll("<", "\\u003c");

export async function pageOf(data: PageData): Promise<string> {
  const code = await script();
  const hash = createHash("sha256").update(code).digest("base64");
  const policy = [
    "default-src 'none'",
    `script-src 'sha256-${hash}'`,
    "style-src 'unsafe-inline'",
    ...(data.isLive ? ["connect-src 'self'"] : []),
    "base-uri 'none'",
    "form-action 'none'",
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy.join("; ")}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>ssa report</title>
<style>${style}</style>
</head>
<body>
<main id="page"><noscript>This page draws its plots with a script of its own, which is switched off here.</noscript></main>
<script type="application/json" id="data">${embedded(data)}</script>
<script>${code}</script>
</body>
</html>
`;
}

export const writePage = async (path: string, data: PageData) =>
  writeFileAtomic(path, await pageOf(data));
