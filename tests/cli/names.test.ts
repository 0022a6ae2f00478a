// Models and data by name through the program: configs, splits, columns, folders, conventions, and names mistyped.

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parquetWriteFile } from "hyparquet-writer";
import type { PerplexityResult } from "../../src/evaluate/window-plan.ts";
import type { RunPlan } from "../../src/run/fit.ts";
import { temporaryFolder } from "../helpers.ts";
import { startHub } from "../hub-server.ts";
import { assertRefused, onlyJson, ssa } from "./program.ts";

const PARAGRAPH = "The nation is at peace with every other nation , and its people prosper . ";

/** A parquet file with one more text column than is wanted. */
async function parquet(folder: string, column: string, rows: string[]): Promise<Uint8Array> {
  const filename = join(folder, "rows.parquet");
  const author = rows.map(() => "unknown");
  parquetWriteFile({
    filename,
    columnData: [
      { name: "author", data: author, type: "STRING" },
      { name: column, data: rows, type: "STRING" },
    ],
  });
  return readFile(filename);
}

test("data by name: config, split, column, held-out tail, conventions", async (t) => {
  const cwd = await temporaryFolder(t);
  const tales = await parquet(cwd, "story", Array<string>(40).fill(PARAGRAPH.repeat(8)));
  const article = ["", " = Peace = \n", "", ` ${PARAGRAPH.repeat(40)}\n`, ""];
  const wiki = await parquet(cwd, "text", [...article, ...article, ...article]);
  const hub = await startHub({
    models: {},
    datasets: {
      "Salesforce/wikitext": {
        "wikitext-2-raw-v1/train-00000-of-00001.parquet": wiki,
        "wikitext-2-raw-v1/test-00000-of-00001.parquet": wiki,
      },
      "acme/tales": {
        "english/train-00000-of-00001.parquet": tales,
        "french/train-00000-of-00001.parquet": tales,
      },
    },
  });
  t.after(() => hub.close());
  await mkdir(join(cwd, "folder"));
  await writeFile(join(cwd, "folder", "text.txt"), `${PARAGRAPH}\n`.repeat(300));
  const env = {
    HF_ENDPOINT: hub.url,
    HF_HUB_OFFLINE: "0",
    HF_HOME: join(cwd, "hf"),
    SSA_CACHE: join(cwd, "cache"),
  };
  const run = (command: string) => ssa(command.split(" "), { cwd, env });
  const output = async (command: string): Promise<unknown> => {
    const { code, stdout, stderr } = await run(`${command} --device cpu --json`);
    assert.equal(code, 0, stderr);
    return onlyJson(stdout);
  };
  const planned = async (options: string) =>
    (await output(`finetune --base tiny-gpt2 --dry-run ${options}`)) as RunPlan;

  const held = await planned("--data acme/tales:english --text-column story");
  assert.ok(held.data.trainTokens > 1000 && held.evaluation.reportWindows > 0);
  assert.ok(held.memoryBytes.training > held.memoryBytes.scoring);
  const apart = await planned("--data folder --eval-data wikitext@test");
  const tail = await planned("--data folder --hold-out 0.5");
  assert.ok(apart.data.trainTokens > 1.9 * tail.data.trainTokens);

  const scored = (convention: string) =>
    output(`eval --model tiny-gpt2 --data wikitext@test${convention}`) as Promise<PerplexityResult>;
  const plain = await scored(" --convention hf-disjoint");
  assert.equal(plain.wordPerplexity, null);
  assert.equal(plain.lossNats, (await scored("")).lossNats, "WikiText's rows are joined anyway");
  const perWord = await scored(" --convention lm-eval");
  assert.equal(perWord.convention, "lm-eval");
  assert.ok(perWord.wordPerplexity! > perWord.perplexity);

  const finetune = "finetune --base tiny-gpt2 --dry-run --data";
  const cases: readonly (readonly [command: string, message: RegExp])[] = [
    [`${finetune} acme/tales`, /several configs: english, french\s+hint: name one/],
    [`${finetune} acme/tales:englsh`, /no config "englsh".*\s+hint: did you mean "english"\?/],
    [`${finetune} wikitext@tset`, /no split "tset".*\s+hint: did you mean "test"\?/],
    [
      `${finetune} acme/tales:english --text-column stroy`,
      /no field "stroy".*\s+hint: did you mean "story"\?/,
    ],
    [`${finetune} mobydick`, /no public data set "mobydick"\s+hint: did you mean "moby-dick"\?/],
    ["inspect tinygpt2", /no public model "tinygpt2"\s+hint: did you mean "tiny-gpt2"\?/],
  ];
  await Promise.all(
    cases.map(async ([command, message]) => assertRefused(await run(command), message)),
  );
});
