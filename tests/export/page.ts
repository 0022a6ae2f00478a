// A headless Chromium with the library's web build and an exported folder, both from a server on loopback.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, type Page } from "playwright-core";

const CHROMIUM = "/usr/bin/chromium";

/** The `skip` option of a test that needs a browser. */
export const skipWithoutBrowser = existsSync(CHROMIUM) ? false : `${CHROMIUM} is not installed`;

const types: Readonly<Record<string, string>> = {
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

export interface OpenPage {
  readonly page: Page;
  close(): Promise<void>;
}

/** A page whose `transformers` is the library, set to load models from `folder` alone. */
export async function openPage(folder: string): Promise<OpenPage> {
  const packages = fileURLToPath(new URL("../../node_modules", import.meta.url));
  const roots: Readonly<Record<string, string>> = {
    library: join(packages, "@huggingface/transformers/dist"),
    runtime: join(packages, "onnxruntime-web/dist"),
    models: folder,
  };
  const server = createServer((request, response) => {
    const [, root = "", ...rest] = new URL(request.url!, "http://localhost").pathname.split("/");
    const path = normalize(join(roots[root] ?? "", ...rest));
    const isInside = roots[root] !== undefined && path.startsWith(roots[root] + sep);
    const content =
      root === "" ? Promise.resolve("<!doctype html>") : readFile(isInside ? path : "");
    content.then(
      (data) => response.setHeader("content-type", types[extname(path)] ?? "text/html").end(data),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-dev-shm-usage",
      // WebGPU on the software adapter that Chromium brings.
      "--enable-unsafe-webgpu",
      "--use-webgpu-adapter=swiftshader",
      "--enable-features=Vulkan",
    ],
  });
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  await page.addScriptTag({
    type: "module",
    content: `
      import * as transformers from "/library/transformers.min.js";
      const { env } = transformers;
      Object.assign(env, { allowLocalModels: true, allowRemoteModels: false, localModelPath: "/models/" });
      Object.assign(env, { useBrowserCache: false, useWasmCache: false });
      const runtime = "/runtime/ort-wasm-simd-threaded.asyncify";
      env.backends.onnx.wasm.wasmPaths = { mjs: runtime + ".mjs", wasm: runtime + ".wasm" };
      globalThis.transformers = transformers;`,
  });
  await page.waitForFunction(() => "transformers" in globalThis);
  return {
    page,
    close: async () => {
      await browser.close();
      server.close();
    },
  };
}
