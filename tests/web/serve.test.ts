// The page that fine-tunes, in a headless Chromium: it gets the losses of `ssa finetune`, its adapter is one that the
// program reads, and it is whole, quiet and deaf to what is written in files.

import assert from "node:assert/strict";
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import * as format from "../../src/core/format.ts";
import { createRandom } from "../../src/core/random.ts";
import { estimate, roomOf } from "../../src/engines/onnxruntime/estimate.ts";
import { targets } from "../../src/engines/onnx/onnx.ts";
import type { Outputs } from "../../src/graph/tensor.ts";
import { loadRecipe } from "../../src/options/load.ts";
import { bytesFor, preparePageRun } from "../../src/web/fine-tune.ts";
import { openFolder } from "../../src/web/folder.ts";
import { openBrowser, type OpenPage, packageFolder, skipWithoutBrowser } from "../browser.ts";
import { jsonLines, onlyJson, ssa } from "../cli/program.ts";
import { temporaryFolder } from "../helpers.ts";

const skip = { skip: skipWithoutBrowser };
const model = join(import.meta.dirname, "../../checkpoints/tiny-gpt2");
const hostile = "<img src=x onerror=alert(1)>";
const axe = await readFile(join(packageFolder("axe-core"), "axe.min.js"), "utf8");

/** A text that can be learnt a little. */
function textOf(seed: number, words: number): string {
  const random = createRandom(seed);
  const known = "the sea was long and the white whale went down under our ship at night".split(" ");
  return Array.from(
    { length: words },
    () => known[Math.floor(random.uniform() * known.length)],
  ).join(" ");
}

let browser: OpenPage | undefined;
let root = "";
const flags = () =>
  `--base tiny-gpt2 --data ${root}/learn.txt --eval-data ${root}/held.txt --context 32 --gradient-accumulation-steps 2 --seed 3`.split(
    " ",
  );

/** Opens the page in a tab of its own; the browser may complain of nothing and ask nobody else. */
async function open(t: TestContext, url: string) {
  const page = await browser!.page.context().browser()!.newPage();
  t.after(() => page.close());
  const complaints: string[] = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => complaints.push(dialog.message()));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) complaints.push(request.url());
  });
  await page.goto(url);
  return { page, complaints };
}

async function train(page: Page, device = "wasm"): Promise<string> {
  await page.getByLabel("Device").selectOption(device);
  await page.getByRole("button", { name: "Fine-tune" }).click();
  await page.locator("[role=alert], h2:text('Adapter')").first().waitFor({ timeout: 240_000 });
  return page.locator("main").innerText();
}

async function download(page: Page, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const link of await page.locator("a[download]").all()) {
    const [file] = await Promise.all([page.waitForEvent("download"), link.click()]);
    await file.saveAs(join(folder, file.suggestedFilename()));
  }
}

const lossesIn = async (path: string, kind: string) =>
  jsonLines(await readFile(path, "utf8")).flatMap((line) =>
    line["kind"] === kind ? [Number(line["lossNats"])] : [],
  );

function near(found: readonly number[], expected: readonly number[], most: number) {
  assert.equal(found.length, expected.length);
  const far = Math.max(...found.map((value, i) => Math.abs(value - expected[i]!)));
  assert.ok(far <= most, `${far}`);
  return far;
}

before(async (t) => {
  if (skipWithoutBrowser) return;
  root = await temporaryFolder(t as TestContext);
  await writeFile(join(root, "learn.txt"), textOf(1, 900));
  await writeFile(join(root, "held.txt"), textOf(2, 160));
  await ssa(["serve", "--export", join(root, "page"), ...flags(), "--steps", "4"]).then(
    ({ code, stderr }) => assert.equal(code, 0, stderr),
  );
  browser = await openBrowser({ page: join(root, "page") });
});
after(() => browser?.close());

const url = () => new URL("page/index.html", browser!.page.url()).href;

test(
  "a page from any server trains as ssa finetune does, and gives an adapter that it reads",
  skip,
  async (t) => {
    const run = join(root, "run");
    const trained = ssa([
      "finetune",
      ...flags(),
      "--steps",
      "4",
      "--out",
      run,
      "--device",
      "cpu",
      "--json",
    ]);
    const { page, complaints } = await open(t, url());
    const words = await train(page);
    const folder = join(root, "adapter");
    await download(page, folder);
    const { code, stdout, stderr } = await trained;
    assert.equal(code, 0, stderr);
    const [own, its] = [folder, run].map((at) => join(at, "metrics.jsonl"));
    for (const kind of ["step", "evaluation"]) {
      const far = near(await lossesIn(own!, kind), await lossesIn(its!, kind), 1e-5);
      t.diagnostic(`losses of ${kind}s within ${far.toExponential(1)} of ssa finetune's`);
    }
    const report = onlyJson(stdout) as unknown as Record<
      "before" | "after",
      { perplexity: number }
    >;
    const [from, to] = [report.before, report.after].map(({ perplexity }) =>
      format.perplexity(perplexity),
    );
    assert.ok(words.includes(`${from} → ${to}`), words);
    assert.match(words, /95 % interval of the change: /);
    assert.match(words, /takes about \d+ MB of memory/);
    const measured = await ssa([
      "eval",
      "--model",
      "tiny-gpt2",
      "--adapter",
      folder,
      "--data",
      join(root, "held.txt"),
      "--context",
      "32",
      "--device",
      "cpu",
      "--json",
    ]);
    assert.equal(measured.code, 0, measured.stderr);
    const { perplexity } = onlyJson(measured.stdout) as { perplexity: number };
    assert.equal(format.perplexity(perplexity), to);
    assert.deepEqual(complaints, []);
    const config = onlyJson(await readFile(join(folder, "ssa_config.json"), "utf8"));
    const kept = onlyJson(await readFile(join(run, "step-000004/ssa_config.json"), "utf8"));
    assert.deepEqual(Object.keys(config), Object.keys(kept));
    assert.equal(config["base_sha256"], kept["base_sha256"]);
  },
);

test(
  "the page that ssa serve makes is there for its link, trains with threads and continues a prompt",
  skip,
  async (t) => {
    let opened: Promise<string> | undefined;
    const look = async (link: string, stop: () => void) => {
      assert.match(link, /^http:\/\/127\.0\.0\.1:\d+\/[0-9a-f]{32}\/$/);
      assert.equal((await fetch(new URL("../", link))).status, 404);
      assert.equal((await fetch(new URL("model/../../config.json", link))).status, 404);
      const { page, complaints } = await open(t, link);
      assert.ok(await page.evaluate(() => crossOriginIsolated));
      const words = await train(page);
      await page.getByLabel("Tokens", { exact: true }).fill("6");
      const answers: string[][] = [];
      for (const temperature of ["0", "0.8", "0.8"]) {
        await page.getByLabel("Temperature").fill(temperature);
        await page.getByRole("button", { name: "Continue" }).click();
        await page.locator("button:enabled:text('Continue')").waitFor();
        answers.push(await page.locator(".grid pre").allTextContents());
      }
      assert.ok(answers.flat().every((text) => text.startsWith("It was") && text.length > 8));
      assert.deepEqual(answers[1], answers[2]);
      for (const how of [{ colorScheme: "light" }, { colorScheme: "dark", width: 360 }] as const) {
        await page.emulateMedia({ colorScheme: how.colorScheme });
        await page.setViewportSize({ width: "width" in how ? how.width : 1000, height: 900 });
        await page.evaluate(axe);
        const { violations } = (await page.evaluate("axe.run()")) as AxeResults;
        assert.deepEqual(
          violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join()}`),
          [],
        );
        assert.ok(!(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)));
      }
      assert.deepEqual(complaints, []);
      stop();
      return words;
    };
    const { code, stdout } = await ssa(
      ["serve", ...flags(), "--steps", "2", "--report-windows", "4"],
      {
        onStdout: (text, child) => {
          opened ??= look(text.trim(), () => child.kill("SIGINT"));
        },
      },
    );
    assert.match(await opened!, /Done: 2 steps on WebAssembly/);
    assert.equal(code, 130, stdout);
  },
);

test(
  "what cannot be trained is one sentence on the page, and what is written in it is text",
  skip,
  async (t) => {
    const folder = async (
      name: string,
      files: readonly string[],
      changed: Readonly<Record<string, string>> = {},
    ) => {
      const path = join(root, name);
      await mkdir(path);
      for (const file of files) await copyFile(join(model, file), join(path, file));
      for (const [file, text] of Object.entries(changed)) await writeFile(join(path, file), text);
      return path;
    };
    const all = await readdir(model);
    const without = (...names: string[]) => all.filter((file) => !names.includes(file));
    const config = onlyJson(await readFile(join(model, "config.json"), "utf8"));
    const configured = (change: object) => ({
      "config.json": JSON.stringify({ ...config, ...change }),
    });
    const write = async (name: string, content: string | Uint8Array) => {
      await writeFile(join(root, name), content);
      return join(root, name);
    };
    const huge = { n_embd: 2 ** 12, n_head: 64, n_positions: 1024 };
    const cases = [
      [
        "Model folder",
        await folder("empty", ["README.md"]),
        /empty has no config\.json \(choose a model folder/,
      ],
      [
        "Model folder",
        await folder("bare", without("model.safetensors")),
        /bare has no model\.safetensors/,
      ],
      [
        "Model folder",
        await folder("mute", without("tokenizer.json")),
        /mute holds no tokenizer\.json/,
      ],
      [
        "Model folder",
        await folder("strange", all, configured({ model_type: hostile })),
        /strange\/config\.json: model_type "<img src=x onerror=alert\(1\)>" is not supported/,
      ],
      [
        "Model folder",
        await folder("torn", all, { "model.safetensors": "{" }),
        /torn\/model\.safetensors is not a valid safetensors file/,
      ],
      [
        "Model folder",
        await folder("other", all, configured(huge)),
        /other: the tensors do not fit config\.json/,
      ],
      [
        "Text files",
        await write("short.txt", "a"),
        /holds too little text to train on|no token that can be scored/,
      ],
      [
        "Text files",
        await write(`${hostile.replaceAll("/", "")}.txt`, Uint8Array.of(255, 255)),
        /<img src=x onerror=alert\(1\)>\.txt is not UTF-8 text/,
      ],
    ] as const;
    const { page, complaints } = await open(t, url());
    for (const [kind, path, expected] of cases) {
      await page.reload();
      await page.getByLabel(kind).setInputFiles(path);
      assert.match(await train(page), expected);
      assert.equal(await page.locator("main img").count(), 0);
    }
    assert.deepEqual(complaints, []);
  },
);

test("WebGPU gives the same losses", skip, async (t) => {
  const { page, complaints } = await open(t, url());
  await page.getByLabel("Steps").fill("1");
  await page.getByLabel("Tokens seen at once").fill("8");
  await writeFile(join(root, "few.txt"), textOf(3, 60));
  await page.getByLabel("Text files").setInputFiles(join(root, "few.txt"));
  const losses: number[][] = [];
  for (const device of ["wasm", "webgpu"]) {
    const words = await train(page, device);
    assert.match(words, /Done: 1 steps? on Web/);
    const folder = join(root, device);
    await download(page, folder);
    losses.push(
      await lossesIn(join(folder, "metrics.jsonl"), "step"),
      await lossesIn(join(folder, "metrics.jsonl"), "evaluation"),
    );
  }
  near(losses.slice(2).flat(), losses.slice(0, 2).flat(), 1e-4);
  assert.deepEqual(complaints, []);
});

test("what takes more than WebAssembly reaches is refused, with what it would take", async () => {
  const names = (await readdir(model)).filter((name) => /json|safetensors/.test(name));
  const files = names.map(
    async (name) => [name, new Blob([await readFile(join(model, name))])] as const,
  );
  const opened = await openFolder("tiny", new Map(await Promise.all(files)));
  const texts = { train: [textOf(1, 400)], heldOut: [textOf(2, 400)] };
  const engine = {
    tiling: targets.cpu.tiling,
    room: roomOf("cpu"),
    estimate: (of: Outputs) => estimate(of, "cpu"),
  };
  const bytesOf = async (batchSize: number) => {
    const recipe = loadRecipe({ values: { base: "tiny", data: "text", context: 128, batchSize } });
    return bytesFor(await preparePageRun(opened, texts, recipe), engine);
  };
  const [one, four] = [await bytesOf(1), await bytesOf(4)];
  assert.ok(one > 1e8 && four > one && four < 1e9, `${one} ${four}`);
  await assert.rejects(bytesOf(1000), /would take about \d.* GB, and a page has 4\.29 GB/);
});
