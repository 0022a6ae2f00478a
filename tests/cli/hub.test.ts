// The user's own command, `ssa finetune --base gpt2 --data wikitext`, against a hub on loopback: a tiny GPT-2 and
// parquet rows shaped as WikiText's; then the same again offline, from the cache alone.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parquetWriteFile } from "hyparquet-writer";
import { embeddedData } from "../../src/data/readers/files.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import { skipWithout, temporaryFolder } from "../helpers.ts";
import { startHub } from "../hub-server.ts";
import { ssa } from "./program.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const tiny = join(root, "checkpoints/tiny-gpt2");

/** Rows as WikiText has them: a heading, blank rows, and a paragraph a row. */
async function rowsOf(split: string): Promise<string[]> {
  const { splits } = await embeddedData("moby-dick");
  const text = await readFile(splits[split]![0]!, "utf8");
  const paragraphs = text.split(/\n\n+/).slice(0, 40);
  return [
    "",
    " = Chapter = \n",
    "",
    ...paragraphs.map((p) => ` ${p.replaceAll("\n", " ")} \n`),
    "",
  ];
}

test(
  "finetune --base gpt2 --data wikitext, online and then offline",
  { skip: skipWithout(join(tiny, "model.safetensors")) },
  async (t) => {
    const folder = await temporaryFolder(t);
    const files: Record<string, Uint8Array> = {};
    for (const [name, split] of [
      ["train", "train"],
      ["validation", "validation"],
      ["test", "validation"],
    ] as const) {
      const filename = join(folder, `${name}.parquet`);
      parquetWriteFile({
        filename,
        columnData: [{ name: "text", data: await rowsOf(split), type: "STRING" }],
      });
      files[`wikitext-2-raw-v1/${name}-00000-of-00001.parquet`] = await readFile(filename);
    }
    const model: Record<string, Uint8Array> = { "pytorch_model.bin": Buffer.from("a pickle") };
    for (const name of await readdir(tiny))
      if (/\.(json|safetensors)$/.test(name)) model[name] = await readFile(join(tiny, name));
    const hub = await startHub({
      models: { "openai-community/gpt2": model },
      datasets: { "Salesforce/wikitext": files },
      token: "hf_secret",
    });
    t.after(() => hub.close());
    const env = {
      HF_ENDPOINT: hub.url,
      HF_HOME: join(folder, "hf"),
      SSA_CACHE: join(folder, "cache"),
      HF_TOKEN: "hf_secret",
      HF_HUB_OFFLINE: "0",
    };
    const args = [
      "finetune",
      "--base",
      "gpt2",
      "--data",
      "wikitext",
      "--steps",
      "3",
      "--context",
      "64",
      "--json",
    ];

    const online = await ssa([...args, "--out", join(folder, "online")], { env });
    assert.equal(online.code, 0, online.stderr);
    const report = JSON.parse(online.stdout) as RunReport;
    assert.equal(report.recipe.base, "gpt2");
    assert.ok(report.after.numTokens > 500);
    assert.ok(!hub.requests.some(({ path }) => path.includes("pytorch_model.bin")), "a pickle");
    assert.ok(!(online.stdout + online.stderr).includes("hf_secret"), "the token shows");

    const { length } = hub.requests;
    const offline = await ssa([...args, "--out", join(folder, "offline")], {
      env: { ...env, HF_HUB_OFFLINE: "1" },
    });
    assert.equal(offline.code, 0, offline.stderr);
    assert.equal(hub.requests.length, length, "offline asks nothing");
    assert.equal((JSON.parse(offline.stdout) as RunReport).after.lossNats, report.after.lossNats);
  },
);

test(
  "--refresh takes what a branch is by now, and says that it has changed; without, nothing is asked",
  { skip: skipWithout(join(tiny, "model.safetensors")) },
  async (t) => {
    const model: Record<string, Uint8Array> = {};
    for (const name of await readdir(tiny))
      if (/\.(json|safetensors)$/.test(name)) model[name] = await readFile(join(tiny, name));
    const first = await startHub({ models: { "some-org/tiny": model } });
    t.after(() => first.close());
    const second = await startHub({
      models: { "some-org/tiny": { ...model, "README.md": Buffer.from("# newer") } },
    });
    t.after(() => second.close());
    const home = await temporaryFolder(t);
    const inspect = async (hub: typeof first, ...flags: string[]) => {
      const env = { HF_ENDPOINT: hub.url, HF_HOME: home, HF_HUB_OFFLINE: "0" };
      const ended = await ssa(["inspect", "some-org/tiny", ...flags], { env });
      assert.equal(ended.code, 0, ended.stderr);
      return ended.stderr;
    };
    await inspect(first);
    await inspect(second);
    assert.deepEqual(second.requests, []);
    const [now, then] = [second, first].map((hub) => hub.commitOf("some-org/tiny").slice(0, 8));
    const told = `main is now ${now}, the cached one was ${then}`;
    assert.ok((await inspect(second, "--refresh")).includes(told));
  },
);
