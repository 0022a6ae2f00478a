// A headless Chromium with the library's web build and an exported folder.

import { openBrowser, type OpenPage, packageFolder } from "../browser.ts";

export { type OpenPage, skipWithoutBrowser } from "../browser.ts";

/** A page whose `transformers` is the library, set to load models from `folder` alone. */
export async function openPage(folder: string): Promise<OpenPage> {
  const opened = await openBrowser({
    library: packageFolder("@huggingface/transformers/dist"),
    runtime: packageFolder("onnxruntime-web/dist"),
    models: folder,
  });
  const { page } = opened;
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
  return opened;
}
