// The page of a run and of a comparison as a browser shows it: whole in one file, in both themes, on paper, to a screen
// reader, and deaf to what is written in a token.

import assert from "node:assert/strict";
import { readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import type { AxeResults } from "axe-core";
import { openEngine } from "../../src/engines/index.ts";
import type { TokenChange } from "../../src/evaluate/details.ts";
import { type PageData, pageOfArms, readRun } from "../../src/report/data.ts";
import { writePage } from "../../src/report/document.ts";
import { compareRuns } from "../../src/run/compare.ts";
import { openBrowser, type OpenPage, packageFolder, skipWithoutBrowser } from "../browser.ts";
import { temporaryFolder } from "../helpers.ts";
import { smallRun, writeTokens } from "../run/small-run.ts";

const skip = { skip: skipWithoutBrowser };
const axe = await readFile(join(packageFolder("axe-core"), "axe.min.js"), "utf8");
const engine = await openEngine("cpu", { threads: 1 });
let browser: OpenPage | undefined;
before(async () => (browser = skipWithoutBrowser ? undefined : await openBrowser({})));
after(async () => {
  await browser?.close();
  await engine.dispose();
});

interface Look {
  readonly colorScheme?: "light" | "dark";
  readonly width?: number;
}

/** Opens a page; the browser may complain of nothing, load nothing else, and axe-core find nothing. */
async function look(file: string, { colorScheme = "light", width = 1000 }: Look = {}) {
  const page = await browser!.page.context().browser()!.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => complaints.push(dialog.message()));
  const url = pathToFileURL(file).href;
  page.on("request", (request) => {
    if (request.url() !== url) complaints.push(request.url());
  });
  await page.emulateMedia({ colorScheme });
  await page.setViewportSize({ width, height: 900 });
  await page.goto(url);
  await page.waitForFunction(() => !document.querySelector("figure > div:empty"));
  assert.deepEqual(complaints, []);
  // Past the page's policy, as a debugger is.
  await page.evaluate(axe);
  const { violations } = (await page.evaluate("axe.run()")) as AxeResults;
  const found = violations.map(
    ({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join()}`,
  );
  assert.deepEqual(found, []);
  const hasSideways = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.ok(!hasSideways, "the page is wider than its window");
  return page;
}

const headings = (page: Awaited<ReturnType<typeof look>>) => page.locator("h2").allTextContents();

test("a run's page is one small file, for both themes, phones and paper", skip, async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  await smallRun({ engine, folder });
  const file = join(folder, "report.html");
  assert.ok((await stat(file)).size < 1e6);
  for (const how of [{}, { colorScheme: "dark" }, { width: 360 }] as const) {
    const page = await look(file, how);
    const words = await page.locator("body").evaluate((body) => getComputedStyle(body).color);
    const isLight = Number(/\d+/.exec(words)?.[0]) > 128;
    assert.equal(isLight, "colorScheme" in how);
    const found = await headings(page);
    for (const title of ["Perplexity", "Training", "By place in the window", "By window"])
      assert.ok(found.includes(title), title);
    for (const title of ["Temperatures of the query", "Temperatures of the value", "Again"])
      assert.ok(found.includes(title), title);
    assert.ok((await page.locator("figure svg").count()) >= 10);
    if (!("width" in how)) assert.ok((await page.pdf()).length > 20_000);
    await page.close();
  }
  const chosen = await look(file);
  const part = (hasText: string) => chosen.locator("section").filter({ hasText });
  const titles = (of = "Temperatures on text") =>
    part(of)
      .locator(".passage span")
      .evaluateAll((spans) => spans.map((span) => span.getAttribute("title")).join());
  const select = (hasText: string, of = "Temperatures on text") =>
    part(of).locator("label", { hasText }).locator("select");
  const mean = await titles();
  await select("Layer").selectOption("1");
  const ofLayer = await titles();
  await select("Projection").selectOption("value");
  assert.equal(await select("Layer").inputValue(), "1");
  assert.equal(new Set([mean, ofLayer, await titles()]).size, 3);
  // The first token sees itself alone, before and after; none sees what is later.
  const where = "Attention on text";
  await part(where).locator(".passage span").first().click();
  assert.match(await select("Token", where).inputValue(), /^0: /);
  assert.equal((await titles(where)).match(/\b100\.0 %/g)?.length, 2);
  await select("Token", where).selectOption({ index: 5 });
  const ofMean = await titles(where);
  await select("Layer", where).selectOption("1");
  assert.notEqual(await titles(where), ofMean);
  await chosen.close();
  // Unfinished, it has what there is.
  for (const name of ["report.json", "details.json"]) await rm(join(folder, name));
  const open = await readRun(folder);
  assert.equal(open.report, undefined);
  await writePage(file, open);
  const page = await look(file);
  assert.deepEqual(await headings(page), ["Training", "Recipe", "Again"]);
  assert.match(await page.locator("main").innerText(), /Not finished: .*, step 8 of 8/);
  await page.close();
});

test(
  "a run without temperatures has the page without them; several runs one of arms",
  skip,
  async (t) => {
    const folder = await temporaryFolder(t);
    const data = await writeTokens(join(folder, "data"));
    const names = ["norms", "lora"] as const;
    const folders = names.map((name) => join(folder, name));
    for (const [i, tune] of names.entries())
      await smallRun({ engine, folder: folders[i]!, data, recipe: { tune: [tune] } });
    // One window has no intervals, and says nothing of windows.
    const one = join(folder, "one");
    await smallRun({
      engine,
      folder: one,
      data,
      recipe: { init: "random", tune: ["all"], reportWindows: 1 },
    });
    const single = await look(join(one, "report.html"));
    assert.ok(!(await headings(single)).includes("By window"));
    assert.match(await single.locator("main").innerText(), /interval of the change: none of one/);
    await single.close();
    for (const run of folders) {
      const page = await look(join(run, "report.html"));
      const found = await headings(page);
      assert.ok(found.includes("By window"));
      assert.ok(!found.some((title) => title.startsWith("Temperatures")));
      await page.close();
    }
    const file = join(folder, "arms.html");
    const comparison = await compareRuns(folders);
    await writePage(file, await pageOfArms("both", comparison));
    for (const how of [{}, { colorScheme: "dark", width: 360 }] as const) {
      const page = await look(file, how);
      const found = (await headings(page)).join();
      assert.equal(
        found,
        "Change of perplexity,Training,Results,Cost,Differences,Equal perplexity",
      );
      assert.ok((await page.locator("main").innerText()).includes("lora"));
      // A pale line for each seed and a strong one for each arm.
      const lines = page
        .locator("figure", { hasText: "Loss of the batches" })
        .locator("path[stroke-opacity], g[stroke-width] path");
      assert.ok((await lines.count()) >= 4);
      await page.close();
    }
  },
);

test("what is written in names and tokens is text and nothing else", skip, async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  await smallRun({ engine, folder });
  const run = await readRun(folder);
  const hostile = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "]]>&lt;b&gt;\u2028\u0000\ud800",
    "javascript:alert(1)",
    '"><svg onload=alert(1)>',
  ];
  const tokens = hostile.map((text): TokenChange => {
    return { text, before: text, after: text, place: 1, nats: [2, 1] };
  });
  const data: PageData = {
    ...run,
    name: hostile[0]!,
    command: hostile[2]!,
    sources: hostile,
    recipeText: hostile.join("\n"),
    recipe: { ...run.recipe, base: hostile[5]!, data: hostile[2]! },
    report: { ...run.report!, device: hostile[0]! },
    details: {
      ...run.details!,
      gained: tokens,
      lost: tokens,
      attention: {
        ...run.details!.attention!,
        tokens: run.details!.attention!.tokens.map((_, i) => hostile[i % hostile.length]!),
      },
      machine: { [hostile[0]!]: hostile[2]! },
    },
  };
  const file = join(folder, "report.html");
  await writePage(file, data);
  const page = await look(file);
  const marks = await page.locator("mark").allTextContents();
  assert.equal(marks[0], hostile[0]);
  assert.equal(marks[2], hostile[2]);
  assert.equal(await page.locator("img, main script, iframe, a").count(), 0);
  assert.ok((await page.title()).startsWith(hostile[0]!));
  // Nor could a script that got in run, or send anything.
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "document.title = 'taken'";
    document.body.append(script);
  });
  assert.notEqual(await page.title(), "taken");
  const sent = await page.evaluate(() =>
    fetch("https://example.com").then(String, () => "refused"),
  );
  assert.equal(sent, "refused");
  await page.close();
});
