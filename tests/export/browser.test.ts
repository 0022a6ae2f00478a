// The same exported folder in a web page: onnxruntime-web under @huggingface/transformers gives the same tokens.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type * as transformers from "@huggingface/transformers";
import { convert } from "../../src/export/convert.ts";
import { sharedData, sharedFolder, skipWithout } from "../helpers.ts";
import { architectures, fixture, greedyTokens } from "./fixture.ts";
import { type OpenPage, openPage, skipWithoutBrowser } from "./page.ts";

/** What page.ts puts there; functions given to `evaluate` run in the page and see nothing else of this file. */
type Library = { readonly transformers: typeof transformers };

let folder: string;
let open: OpenPage | undefined;
before(async () => {
  folder = sharedFolder();
  if (!skipWithoutBrowser) open = await openPage(folder);
});
after(async () => {
  await open?.close();
});

for (const device of ["wasm", "webgpu"] as const)
  for (const name of device === "wasm" ? architectures : (["llama"] as const))
    test(
      `${name} with temperatures generates in a browser (${device}) what whole windows say`,
      { skip: skipWithoutBrowser },
      async (t) => {
        const { page } = open!;
        const hasDevice = await page.evaluate(async (device) => {
          const { gpu } = navigator as unknown as { gpu?: { requestAdapter(): Promise<unknown> } };
          return device === "wasm" || Boolean(await gpu?.requestAdapter());
        }, device);
        if (!hasDevice) return t.skip("the browser has no WebGPU adapter");
        await convert({
          ...fixture(name),
          target: "onnx",
          out: join(folder, name),
          isForced: true,
        });
        const prompt = [3, 1, 4, 1, 5];
        const tokens = await page.evaluate(
          async ({ name, device, prompt }) => {
            const { AutoModelForCausalLM, Tensor } = (globalThis as unknown as Library)
              .transformers;
            const model = await AutoModelForCausalLM.from_pretrained(name, { device });
            const ids = new Tensor("int64", BigInt64Array.from(prompt, BigInt), [1, prompt.length]);
            const sequences = (await model.generate({ inputs: ids, max_new_tokens: 11 })) as {
              tolist(): bigint[][];
            };
            await model.dispose();
            return sequences.tolist()[0]!.map(Number);
          },
          { name, device, prompt },
        );
        assert.deepEqual(tokens, await greedyTokens(fixture(name), prompt, 16));
      },
    );

const stories = sharedData("stories260k");

test(
  "stories260k's pipeline in a browser gives its author's 256 tokens",
  { skip: skipWithoutBrowser || skipWithout(stories) },
  async () => {
    await convert({ model: stories, target: "onnx", out: join(folder, "stories") });
    const text = await open!.page.evaluate(async () => {
      const { pipeline } = (globalThis as unknown as Library).transformers;
      const generator = await pipeline("text-generation", "stories", { device: "wasm" });
      const [result] = (await generator("", { max_new_tokens: 256 })) as {
        generated_text: string;
      }[];
      return result!.generated_text;
    });
    assert.equal(text, await readFile(join(stories, "greedy_reference_256.txt"), "utf8"));
  },
);
