// Data sets by name against a hub on loopback: parquet in the repository or on the converted branch.

import assert from "node:assert/strict";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { resolveDataset } from "../../src/hub/dataset.ts";
import { saying, withHub } from "./fixture.ts";

const WIKITEXT = {
  "README.md": "",
  "wikitext-2-raw-v1/test-00000-of-00001.parquet": "2 test",
  "wikitext-2-raw-v1/train-00000-of-00001.parquet": "2 train",
  "wikitext-2-raw-v1/validation-00000-of-00001.parquet": "2 validation",
  "wikitext-103-raw-v1/train-00000-of-00002.parquet": "103 train a",
  "wikitext-103-raw-v1/train-00001-of-00002.parquet": "103 train b",
  "wikitext-103-raw-v1/test-00000-of-00001.parquet": "103 test",
};
const datasets = {
  "Salesforce/wikitext": WIKITEXT,
  "some-org/converted": {
    revisions: {
      main: { "train.jsonl": "{}" },
      "refs/convert/parquet": {
        "plain/train/0000.parquet": "0",
        "plain/train/0001.parquet": "1",
        "plain/test/0000.parquet": "2",
      },
    },
  },
  "some-org/card": {
    "README.md": `---
configs:
- config_name: long
  data_files: long/*.parquet
- config_name: short
  default: true
  data_files:
  - split: train_sft
    path: data/a.parquet
  - {split: dev, path: ["./data/b.parquet", "more/**"]}
- config_name: folder
  data_dir: ./by-name/
---
`,
    "data/a.parquet": "a",
    "data/b.parquet": "b",
    "more/c/d.parquet": "d",
    "more/e.parquet": "e",
    "long/train-test.parquet": "long",
    "by-name/test.parquet": "test",
    "by-name/in/train.parquet": "train",
    "unnamed/train.parquet": "none",
  },
  "some-org/text": { "train.txt": "words" },
  "some-org/many": {
    "de/train-00000-of-00001.parquet": "de",
    "en/train-00000-of-00001.parquet": "en",
  },
};

async function texts(
  files: Readonly<Record<string, readonly string[]>>,
): Promise<Record<string, string[]>> {
  const read = Object.entries(files).map(async ([split, paths]) => {
    return [split, await Promise.all(paths.map((path) => readFile(path, "utf8")))] as const;
  });
  return Object.fromEntries(await Promise.all(read));
}

test("wikitext means the raw WikiText-2 and wikitext-103 the raw WikiText-103", () =>
  withHub({ datasets }, async ({ hub, settings, requested }) => {
    const two = await resolveDataset("wikitext", settings);
    assert.deepEqual(await texts(two.files), {
      test: ["2 test"],
      train: ["2 train"],
      validation: ["2 validation"],
    });
    assert.equal(two.id, "Salesforce/wikitext");
    assert.equal(two.config, "wikitext-2-raw-v1");
    assert.equal(two.commit, hub.commitOf("Salesforce/wikitext"));
    requested();
    assert.deepEqual(await resolveDataset("wikitext", settings), two);
    assert.deepEqual(
      await resolveDataset("Salesforce/wikitext:wikitext-2-raw-v1", { ...settings, offline: true }),
      two,
    );
    assert.deepEqual(requested(), []);
    const large = await resolveDataset("wikitext-103", settings, {
      splits: ["train", "validation"],
    });
    assert.deepEqual(await texts(large.files), { train: ["103 train a", "103 train b"] });
  }));

test("only the split that is named is fetched", () =>
  withHub({ datasets }, async ({ settings, hub }) => {
    const { files } = await resolveDataset("wikitext@validation", settings);
    assert.deepEqual(await texts(files), { validation: ["2 validation"] });
    assert.equal(hub.requests.filter(({ host }) => host === "cdn").length, 1);
  }));

test("what has no parquet of its own comes from the branch that the hub converts", () =>
  withHub({ datasets }, async ({ settings, requested }) => {
    const converted = await resolveDataset("some-org/converted", settings);
    assert.equal(converted.config, "plain");
    assert.deepEqual(await texts(converted.files), { test: ["2"], train: ["0", "1"] });
    requested();
    assert.deepEqual(await resolveDataset("some-org/converted", settings), converted);
    assert.deepEqual(requested(), []);
    await assert.rejects(
      resolveDataset("some-org/text", settings),
      saying(/has no parquet files.*name the .txt/),
    );
  }));

test("what README.md says of configs and splits counts before names", () =>
  withHub({ datasets }, async ({ settings, requested }) => {
    const name = "some-org/card";
    const train = await resolveDataset(`${name}@train_sft`, settings);
    assert.equal(train.config, "short");
    assert.deepEqual(await texts(train.files), { train_sft: ["a"] });
    assert.match(requested().join(), /README\.md/);
    const all = await resolveDataset(name, settings);
    assert.deepEqual(await texts(all.files), { train_sft: ["a"], validation: ["b", "d", "e"] });
    requested();
    assert.deepEqual(await resolveDataset(name, { ...settings, offline: true }), all);
    assert.deepEqual(await resolveDataset(name, settings), all);
    assert.deepEqual(requested(), []);
    const long = await resolveDataset(`${name}:long`, settings);
    assert.deepEqual(await texts(long.files), { train: ["long"] });
    const folder = await resolveDataset(`${name}:folder`, settings, { splits: ["train"] });
    assert.deepEqual(await texts(folder.files), { train: ["train"] });
    await assert.rejects(
      resolveDataset(name, settings, { splits: ["train"] }),
      saying(/no split "train"; it has train_sft, validation/),
    );
  }));

test("unknown configs and splits list those that exist", () =>
  withHub({ datasets }, async ({ settings }) => {
    await assert.rejects(
      resolveDataset("wikitext:wikitext-2-raw", settings),
      saying(
        /no config "wikitext-2-raw"; it has wikitext-103-raw-v1, wikitext-2-raw-v1 \| did you mean "wikitext-2-raw-v1"/,
      ),
    );
    await assert.rejects(
      resolveDataset("wikitext@validaton", settings),
      saying(/no split "validaton"; it has test, train, validation \| did you mean "validation"/),
    );
    await assert.rejects(
      resolveDataset("some-org/many", settings),
      saying(/several configs: de, en \| name one, for instance some-org\/many:de/),
    );
    await assert.rejects(
      resolveDataset("wikitex2", settings),
      saying(/no public data set "wikitex2" \| did you mean "wikitext-?2?"/),
    );
  }));

test("a cache that Python filled is read without a request; offline, a split that is not there is named", () =>
  withHub({ datasets }, async ({ settings, cacheDir, requested }) => {
    const commit = "b08601e04326c79dfdd32d625aee71d232d685c3";
    const repo = join(cacheDir, "datasets--wikitext");
    const put = async (name: string) => {
      const link = join(repo, "snapshots", commit, "wikitext-2-raw-v1", name);
      const blob = join(repo, "blobs", name);
      for (const path of [link, blob]) await mkdir(dirname(path), { recursive: true });
      await writeFile(blob, name);
      await symlink(`../../../blobs/${name}`, link);
    };
    await mkdir(join(repo, "refs"), { recursive: true });
    await writeFile(join(repo, "refs/main"), commit);
    await put("train-00000-of-00001.parquet");
    await put("test-00000-of-00002.parquet"); // and its second part is not here
    const { files } = await resolveDataset("wikitext@train", settings);
    assert.deepEqual(await texts(files), { train: ["train-00000-of-00001.parquet"] });
    assert.deepEqual(requested(), []);
    const offline = { ...settings, offline: true };
    for (const split of ["test", "validation"])
      await assert.rejects(
        resolveDataset(`wikitext@${split}`, offline),
        saying(new RegExp(`offline, and wikitext-2-raw-v1/${split} \\(parquet\\) of data set`)),
      );
    assert.deepEqual(requested(), []);
    assert.deepEqual((await texts((await resolveDataset("wikitext@test", settings)).files)).test, [
      "2 test",
    ]);
  }));
