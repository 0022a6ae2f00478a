// Fine-tuning in a web page: the library's own code, bundled for a browser, trains on onnxruntime-web in a headless
// Chromium, with WebAssembly and with WebGPU, and gets the losses that the CPU gets here.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { build } from "esbuild";
import { openModel } from "../../src/model/open.ts";
import { openEngine } from "../../src/engines/index.ts";
import { openBrowser, packageFolder, skipWithoutBrowser } from "../browser.ts";
import { temporaryFolder } from "../helpers.ts";
import type { finetune } from "./browser-training.ts";
import { deviation, trainTemperatures } from "./train-temperatures.ts";

const fixtures = join(import.meta.dirname, "../fixtures");
const STEPS = 8;

test("a web page fine-tunes as the CPU does", { skip: skipWithoutBrowser }, async (t) => {
  const folder = await temporaryFolder(t);
  // Fails on any module of Node's.
  await build({
    entryPoints: [join(import.meta.dirname, "browser-training.ts")],
    outfile: join(folder, "training.js"),
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2023",
    logLevel: "silent",
  });
  const { page, close } = await openBrowser({
    program: folder,
    models: fixtures,
    runtime: packageFolder("onnxruntime-web/dist"),
  });
  t.after(close);
  const engine = await openEngine("cpu", { threads: 1 });
  t.after(() => engine.dispose());

  for (const variant of ["llama", "gpt2"]) {
    const model = await openModel(join(fixtures, variant), {
      adapter: join(fixtures, variant, "ssa/default"),
    });
    const { losses: expected } = await trainTemperatures(engine, model, STEPS);
    assert.ok(expected[0]! - expected.at(-1)! > 1e-3, "nothing was trained");
    for (const provider of ["wasm", "webgpu"] as const)
      await t.test(`${variant} on ${provider}`, async (t) => {
        const losses = await page.evaluate(
          async ({ variant, provider, steps }) => {
            const url = "/program/training.js";
            const program = (await import(url)) as { finetune: typeof finetune };
            return program.finetune(`/models/${variant}`, provider, steps);
          },
          { variant, provider, steps: STEPS },
        );
        assert.equal(losses.length, STEPS);
        const found = deviation(losses, expected);
        t.diagnostic(`${STEPS} losses within ${found.toExponential(1)} of the CPU's`);
        assert.ok(found <= 1e-4, `${found}`);
      });
  }
});
