// Settings from the environment, and names as people type them.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";
import { UserError } from "../../src/core/errors.ts";
import { openSnapshot } from "../../src/hub/cache.ts";
import { hubSettings } from "../../src/hub/environment.ts";
import { parquetFiles } from "../../src/hub/dataset.ts";
import { parseDatasetName, parseModelName, suggestion } from "../../src/hub/repo-id.ts";
import { sharedFolder } from "../helpers.ts";

test("the cache folder follows the variables of huggingface_hub, the more exact one first", () => {
  const cases: [Record<string, string>, string][] = [
    [{}, "/home/u/.cache/huggingface/hub"],
    [{ XDG_CACHE_HOME: "/x" }, "/x/huggingface/hub"],
    [{ XDG_CACHE_HOME: "/x", HF_HOME: "/h" }, "/h/hub"],
    [{ HF_HOME: "~/h" }, "/home/u/h/hub"],
    [{ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" }, "/old"],
    [{ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old", HF_HUB_CACHE: "/new" }, "/new"],
  ];
  for (const [env, expected] of cases) assert.equal(hubSettings(env, "/home/u").cacheDir, expected);
});

test("endpoint, offline state and timeouts are read, and nonsense in them is refused", () => {
  const settings = hubSettings(
    {
      HF_ENDPOINT: "https://mirror.example/",
      HF_HUB_ETAG_TIMEOUT: "3",
      TRANSFORMERS_OFFLINE: "Yes",
    },
    "/home/u",
  );
  assert.equal(settings.endpoint, "https://mirror.example");
  assert.equal(settings.metadataTimeoutMs, 3000);
  assert.equal(settings.offline, true);
  assert.equal(hubSettings({ HF_HUB_OFFLINE: "0" }, "/home/u").offline, false);
  assert.throws(() => hubSettings({ HF_ENDPOINT: "mirror" }, "/"), /HF_ENDPOINT is "mirror"/);
  assert.throws(() => hubSettings({ HF_HUB_DOWNLOAD_TIMEOUT: "soon" }, "/"), /number of seconds/);
});

test("the token comes from HF_TOKEN, else from its file, and shows nowhere", () => {
  const home = sharedFolder();
  writeFileSync(join(home, "token"), "hf_fromfile\n");
  const reveal = (env: Record<string, string>) =>
    hubSettings({ HF_HOME: home, ...env }, "/").token?.reveal();
  assert.equal(reveal({}), "hf_fromfile");
  assert.equal(reveal({ HF_TOKEN: " hf_fromenv " }), "hf_fromenv");
  assert.equal(reveal({ HF_TOKEN_PATH: "/nowhere" }), undefined);
  assert.equal(reveal({ HF_TOKEN: "hf_fromenv", HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }), undefined);
  const settings = hubSettings({ HF_HOME: home }, "/");
  for (const text of [
    inspect(settings, { depth: 9, showHidden: true }),
    JSON.stringify(settings),
    inspect(settings.token, { showHidden: true }),
  ])
    assert.ok(!text.includes("hf_fromfile"), text);
  assert.throws(
    () => hubSettings({ HF_TOKEN: "hf_se cret" }, "/"),
    (error: UserError) => !inspect(error).includes("cret"),
  );
});

test("short names become ids, and revisions, configs and splits are split off", () => {
  const gpt2 = {
    type: "model",
    id: "openai-community/gpt2",
    revision: "main",
  };
  assert.deepEqual(parseModelName("gpt2"), gpt2);
  assert.deepEqual(parseModelName("hf:openai-community/gpt2"), gpt2);
  assert.equal(parseModelName("EleutherAI/pythia-70m@step3000").revision, "step3000");
  assert.equal(parseModelName("org/name@refs/pr/1").revision, "refs/pr/1");
  const file = { type: "model", id: "org/name-GGUF", revision: "v1", file: "Q4 0/a.b-Q4_0.gguf" };
  assert.deepEqual(parseModelName("hf:org/name-GGUF/Q4 0/a.b-Q4_0.gguf@v1"), file);
  const named = ({ id, config, split }: ReturnType<typeof parseDatasetName>) => [id, config, split];
  assert.deepEqual(named(parseDatasetName("wikitext")), [
    "Salesforce/wikitext",
    "wikitext-2-raw-v1",
    undefined,
  ]);
  assert.deepEqual(named(parseDatasetName("wikitext-103@test")), [
    "Salesforce/wikitext",
    "wikitext-103-raw-v1",
    "test",
  ]);
  assert.deepEqual(named(parseDatasetName("wikitext:wikitext-2-v1")), [
    "Salesforce/wikitext",
    "wikitext-2-v1",
    undefined,
  ]);
  assert.deepEqual(named(parseDatasetName("a/b@train")), ["a/b", undefined, "train"]);
});

test("a name that every object has is a name like any other", () => {
  for (const name of ["constructor", "__proto__", "toString"]) {
    assert.equal(parseModelName(name).id, name);
    assert.deepEqual(parseDatasetName(name), {
      id: name,
      config: undefined,
      split: undefined,
    });
  }
});

test("what cannot be a name is refused in one sentence", () => {
  for (const name of [
    "",
    "a/b/c",
    "a/b/../c.gguf",
    "a/b/.gguf",
    "a/b//c.gguf",
    "../b/c.gguf",
    "../x",
    "a..b",
    "-a",
    "a--b/c",
    "a b",
    "a\\b",
    "x.git",
    "gpt2@../..",
    "gpt2@",
    "gpt2@/etc",
  ])
    assert.throws(() => parseModelName(name), UserError, name);
  for (const name of ["a/b:..", "a/b@", "a/b:c/d", "a/b:c@d/e"])
    assert.throws(() => parseDatasetName(name), UserError, name);
});

test("a mistyped name gets the nearest known one, with its organisation", () => {
  const cases = [
    ["model", "gpt-2", "gpt2"],
    ["model", "distillgpt2", "distilgpt2"],
    ["model", "pythia-160m", "EleutherAI/pythia-160m"],
    ["model", "EleutherAI/pythia160m", "EleutherAI/pythia-160m"],
    ["dataset", "wikitxt", "wikitext"],
  ] as const;
  for (const [type, id, known] of cases)
    assert.equal(suggestion({ type, id }), `did you mean "${known}"?`);
  assert.equal(suggestion({ type: "dataset", id: "quite-another-thing" }), undefined);
  assert.equal(suggestion({ type: "model", id: "gpt2" }), undefined);
});

test("a path from the hub that leaves its folder is refused, by the rules of every system", () => {
  const { pathOf } = openSnapshot(hubSettings({}, "/"), parseModelName("a/b"), "0".repeat(40));
  for (const path of [
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a\\..\\x",
    "C:x",
    "c:\\x",
    "\\\\host\\x",
    "a//b",
    "./a",
    "",
    "a\0b",
  ])
    assert.throws(() => pathOf(path), UserError, path);
  for (const path of ["a", "a/b.c", "..a/b..", "onnx/model.onnx"]) pathOf(path);
});

test("parquet files are sorted into configs and splits by the names in use on the hub", () => {
  const files = parquetFiles([
    "wikitext-2-raw-v1/test-00000-of-00001.parquet",
    "wikitext-2-raw-v1/train-00001-of-00002.parquet",
    "wikitext-2-raw-v1/train-00000-of-00002.parquet",
    "data/valid-00000-of-00001-0123456789abcdef.parquet",
    "data/train_sft-00000-of-00001.parquet",
    "plain_text/partial-train/0000.parquet",
    "en/dev/part.parquet",
    "data/0001.parquet",
    "README.md",
  ]);
  assert.deepEqual(
    files.map(({ path, config, split }) => `${config}, ${split}: ${path}`),
    [
      "default, train: data/0001.parquet",
      "default, train_sft: data/train_sft-00000-of-00001.parquet",
      "default, validation: data/valid-00000-of-00001-0123456789abcdef.parquet",
      "en, validation: en/dev/part.parquet",
      "plain_text, partial-train: plain_text/partial-train/0000.parquet",
      "wikitext-2-raw-v1, test: wikitext-2-raw-v1/test-00000-of-00001.parquet",
      "wikitext-2-raw-v1, train: wikitext-2-raw-v1/train-00000-of-00002.parquet",
      "wikitext-2-raw-v1, train: wikitext-2-raw-v1/train-00001-of-00002.parquet",
    ],
  );
});
