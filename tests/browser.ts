// A headless Chromium with an empty page, served from loopback together with the folders that a test names.

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

/** The folder of an installed package. */
export const packageFolder = (name: string) =>
  fileURLToPath(new URL(`../node_modules/${name}`, import.meta.url));

/** A page at `/`; what is in the folder of `roots[name]` is served at `/name/`. */
export async function openBrowser(roots: Readonly<Record<string, string>>): Promise<OpenPage> {
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
  return {
    page,
    close: async () => {
      await browser.close();
      server.close();
    },
  };
}
