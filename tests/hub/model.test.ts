// Models by name against a hub on loopback: what is fetched, what is cached, and what the errors say.

import assert from "node:assert/strict";
import {
  lstat,
  mkdir,
  readFile,
  readdir,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import type { UserError } from "../../src/core/errors.ts";
import type { TreeEntry } from "../hub-server.ts";
import { content, MODEL_FILES, saying, WEIGHTS, withHub, resolveModel } from "./fixture.ts";

test("only the files that are needed are fetched, in the layout of huggingface_hub", () =>
  withHub({}, async ({ hub, settings, cacheDir, requested }) => {
    const { folder, commit } = await resolveModel("some-org/tiny", settings);
    const repo = join(cacheDir, "models--some-org--tiny");
    assert.equal(commit, hub.commitOf("some-org/tiny"));
    assert.equal(folder, join(repo, "snapshots", commit));
    assert.equal(await readFile(join(repo, "refs/main"), "utf8"), commit);
    assert.deepEqual((await readdir(folder)).toSorted(), [
      "README.md",
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const target = await readlink(join(folder, "model.safetensors"));
    assert.match(target, /^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    assert.match(await readlink(join(folder, "config.json")), /^\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/);
    assert.deepEqual(new Uint8Array(await readFile(join(folder, "model.safetensors"))), WEIGHTS);
    assert.ok(requested().every((path) => !/pytorch_model|onnx/.test(path)));
    assert.deepEqual(await readdir(join(cacheDir, ".locks/models--some-org--tiny")), []);
  }));

const GGUF_FILES = {
  "README.md": "# several quantisations",
  "tiny-Q8_0.gguf": content(5000),
  "Q4_0/tiny-Q4_0-00001-of-00002.gguf": content(3000),
  "Q4_0/tiny-Q4_0-00002-of-00002.gguf": content(2000),
  "Q4_0/tokenizer.json": '{"version":"1.0"}',
};

test("one GGUF file of a repository is fetched, with all its parts and the tokenizer beside it", () =>
  withHub(
    { models: { "some-org/tiny-GGUF": GGUF_FILES } },
    async ({ hub, settings, requested, with: settingsFor }) => {
      const base = "some-org/tiny-GGUF";
      const commit = hub.commitOf(base);
      const fetched = () =>
        requested().flatMap((path) => /resolve\/[^/]+\/(.*)/.exec(path)?.[1] ?? []);
      const one = await resolveModel(`${base}/tiny-Q8_0.gguf`, settings);
      assert.equal(
        one.folder,
        join(settings.cacheDir, `models--some-org--tiny-GGUF/snapshots/${commit}/tiny-Q8_0.gguf`),
      );
      assert.deepEqual(new Uint8Array(await readFile(one.folder)), content(5000));
      assert.deepEqual(fetched(), ["tiny-Q8_0.gguf"]);
      const named = `hf:${base}/Q4_0/tiny-Q4_0-00001-of-00002.gguf@main`;
      const { folder } = await resolveModel(named, settings);
      const beside = Object.keys(GGUF_FILES).filter((name) => name.startsWith("Q4_0/"));
      assert.deepEqual(fetched().toSorted(), beside.toSorted());
      assert.deepEqual(
        (await readdir(dirname(folder))).toSorted(),
        beside.map((name) => name.slice(5)).toSorted(),
      );
      const offline = settingsFor({ HF_HUB_OFFLINE: "1" });
      assert.equal((await resolveModel(named, offline)).folder, folder);
      assert.deepEqual(requested(), []);
      await rm(join(dirname(folder), "tiny-Q4_0-00002-of-00002.gguf"));
      await assert.rejects(resolveModel(named, offline), saying(/tiny-Q4_0-00002-of-00002.gguf/));
      await assert.rejects(
        resolveModel(`${base}/tiny-Q8_1.gguf`, settings),
        saying(
          /"some-org\/tiny-GGUF" has no file "tiny-Q8_1.gguf" \| did you mean "tiny-Q8_0.gguf"/,
        ),
      );
      await assert.rejects(
        resolveModel(base, settings),
        saying(
          /holds quantised weights \(.*gguf\), not safetensors \| .* on the hub as org\/name\/FILE.gguf/,
        ),
      );
    },
  ));

test("what is cached is used without a request, offline too", () =>
  withHub({}, async ({ settings, requested, with: settingsFor }) => {
    const first = await resolveModel("some-org/tiny", settings);
    requested();
    assert.deepEqual(await resolveModel("some-org/tiny", settings), first);
    assert.deepEqual(
      await resolveModel("some-org/tiny", settingsFor({ HF_HUB_OFFLINE: "1" })),
      first,
    );
    assert.deepEqual(await resolveModel(`some-org/tiny@${first.commit}`, settings), first);
    assert.deepEqual(requested(), []);
  }));

test("a cache that an older huggingface_hub filled, under a former name, is read without a request", () =>
  withHub({}, async ({ settings, cacheDir, requested }) => {
    const commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e";
    const repo = join(cacheDir, "models--gpt2");
    const put = async (path: string, text: string) => {
      await mkdir(dirname(join(repo, path)), { recursive: true });
      await writeFile(join(repo, path), text);
    };
    await put("refs/main", commit);
    await put(`.no_exist/${commit}/tokenizer_config.json`, "");
    await mkdir(join(repo, "snapshots", commit), { recursive: true });
    for (const [i, name] of ["config.json", "tokenizer.json", "model.safetensors"].entries()) {
      await put(`blobs/${i}`, "{}");
      await symlink(`../../blobs/${i}`, join(repo, "snapshots", commit, name));
    }
    assert.deepEqual(await resolveModel("gpt2", settings), {
      folder: join(repo, "snapshots", commit),
      commit,
    });
    assert.deepEqual(requested(), []);
  }));

test("a snapshot that lacks a file is completed, and nothing is fetched twice", () =>
  withHub({}, async ({ settings, cacheDir, requested }) => {
    const { folder } = await resolveModel("some-org/tiny", settings);
    await rm(join(folder, "model.safetensors"));
    await rm(join(folder, "tokenizer.json"));
    await rm(join(cacheDir, "models--some-org--tiny", "blobs"), { recursive: true });
    requested();
    await resolveModel("some-org/tiny", settings);
    assert.ok(requested().some((path) => path.endsWith("tokenizer.json")));
    assert.deepEqual(new Uint8Array(await readFile(join(folder, "model.safetensors"))), WEIGHTS);
  }));

test("a tokenizer of two files is fetched, and missed where a cache has lost it", () => {
  const { "tokenizer.json": _, ...rest } = MODEL_FILES;
  const old = { ...rest, "vocab.json": '{"a":0}', "merges.txt": "#version: 0.2" };
  return withHub({ models: { "some-org/old": old } }, async ({ settings, requested }) => {
    const { folder } = await resolveModel("some-org/old", settings);
    for (const name of ["vocab.json", "merges.txt"] as const)
      assert.equal(await readFile(join(folder, name), "utf8"), old[name]);
    requested();
    await resolveModel("some-org/old", settings);
    assert.deepEqual(requested(), []);
    await rm(join(folder, "merges.txt"));
    await assert.rejects(
      resolveModel("some-org/old", { ...settings, offline: true }),
      saying(/offline, and merges.txt of model "some-org\/old" is not in the cache/),
    );
    await resolveModel("some-org/old", settings);
    assert.equal(await readFile(join(folder, "merges.txt"), "utf8"), old["merges.txt"]);
  });
});

test("sharded weights are fetched by their index", () => {
  const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;
  const { "model.safetensors": _, ...rest } = MODEL_FILES;
  const index = { weight_map: { a: shards[0], b: shards[1], c: shards[0] } };
  const files = {
    ...rest,
    "model.safetensors.index.json": JSON.stringify(index),
    [shards[0]]: content(5000),
    [shards[1]]: content(6000),
    "model-00003-of-00002.safetensors": content(10),
  };
  return withHub({ models: { "some-org/sharded": files } }, async ({ settings, requested }) => {
    const { folder } = await resolveModel("some-org/sharded", settings);
    const found = (await readdir(folder)).filter((name) => name.endsWith(".safetensors"));
    assert.deepEqual(found.toSorted(), shards);
    requested();
    await resolveModel("some-org/sharded", settings);
    assert.deepEqual(requested(), []);
    await rm(join(folder, shards[1]));
    await assert.rejects(
      resolveModel("some-org/sharded", { ...settings, offline: true }),
      saying(
        /offline, and model-00002-of-00002.safetensors of model "some-org\/sharded" is not in the cache/,
      ),
    );
  });
});

test("an index that points out of the folder is refused", () => {
  const { "model.safetensors": _, ...rest } = MODEL_FILES;
  const index = JSON.stringify({ weight_map: { a: "../../../refs/main" } });
  const files = { ...rest, "model.safetensors.index.json": index };
  return withHub({ models: { "some-org/evil": files } }, async ({ settings }) => {
    await assert.rejects(resolveModel("some-org/evil", settings), /not a file of this folder/);
    await assert.rejects(
      resolveModel("some-org/evil", { ...settings, offline: true }),
      /not a file of this folder/,
    );
  });
});

test("a listing with a path that climbs out is refused before anything is written", async () => {
  for (const path of ["../../../evil.json", "/evil.json", "a\\..\\..\\evil"]) {
    const alterTree = (entries: TreeEntry[]) => entries.map((entry) => ({ ...entry, path }));
    const models = { "some-org/evil": { revisions: { main: MODEL_FILES }, alterTree } };
    await withHub({ models }, async ({ settings, cacheDir }) => {
      await assert.rejects(resolveModel("some-org/evil", settings), saying(/leave its folder/));
      await assert.rejects(lstat(join(cacheDir, "models--some-org--evil")), /ENOENT/);
    });
  }
});

test("a repository with only pickled weights is refused by their name, and they are not fetched", () => {
  const { "model.safetensors": _, ...files } = MODEL_FILES;
  return withHub({ models: { "some-org/old": files } }, async ({ settings, requested }) => {
    await assert.rejects(
      resolveModel("some-org/old", settings),
      saying(/holds pickled weights \(pytorch_model.bin\), not safetensors/),
    );
    assert.ok(requested().every((path) => !path.includes("/resolve/")));
  });
});

test("a revision is pinned to its commit, and a mistyped one gets the nearest", () => {
  const other = { ...MODEL_FILES, "model.safetensors": content(77) };
  const source = { revisions: { main: MODEL_FILES, step3000: other } };
  return withHub({ models: { "some-org/steps": source } }, async ({ hub, settings, cacheDir }) => {
    const { folder, commit } = await resolveModel("some-org/steps@step3000", settings);
    assert.equal(commit, hub.commitOf("some-org/steps", "step3000"));
    assert.equal((await readFile(join(folder, "model.safetensors"))).length, 77);
    assert.deepEqual(await readdir(join(cacheDir, "models--some-org--steps/refs")), ["step3000"]);
    await assert.rejects(
      resolveModel("some-org/steps@step300", settings),
      saying(/has no revision "step300" \| did you mean "step3000"/),
    );
  });
});

test("a name that the hub forwards is followed, and cached under the name that was given", () =>
  withHub({ moved: { "old-org/tiny": "some-org/tiny" } }, async ({ settings, cacheDir }) => {
    const { folder } = await resolveModel("old-org/tiny", settings);
    assert.ok(folder.startsWith(join(cacheDir, "models--old-org--tiny")));
  }));

test("names that the hub does not know get a suggestion", () =>
  withHub({ token: "hf_right" }, async ({ settings, with: settingsFor }) => {
    await assert.rejects(
      resolveModel("gpt2-medum", settings),
      saying(/no public model "gpt2-medum" \| did you mean "gpt2-medium"/),
    );
    const signedIn = settingsFor({ HF_TOKEN: "hf_right" });
    await assert.rejects(
      resolveModel("some-org/none", signedIn),
      saying(/has no model "some-org\/none" \| check the name/),
    );
  }));

test("gated and private models and refused tokens say what to do, and no error holds the token", () => {
  const models = {
    "some-org/gated": { revisions: { main: MODEL_FILES }, access: "gated" },
    "some-org/private": { revisions: { main: MODEL_FILES }, access: "private" },
    "some-org/tiny": MODEL_FILES,
  } as const;
  return withHub({ models, token: "hf_right" }, async ({ settings, hub, with: settingsFor }) => {
    await assert.rejects(
      resolveModel("some-org/gated", settings),
      saying(
        new RegExp(`is gated.*ask for access at ${hub.url}/some-org/gated, then set HF_TOKEN`),
      ),
    );
    await assert.rejects(
      resolveModel("some-org/private", settings),
      saying(/no public model.*for a private one set HF_TOKEN/),
    );
    await assert.rejects(
      resolveModel("some-org/tiny", settingsFor({ HF_TOKEN: "hf_wrong" })),
      (error: UserError) => {
        assert.ok(!`${error.stack}${error.hint}`.includes("hf_wrong"));
        return saying(/refuses the token in use.*set HF_TOKEN, or unset it/)(error);
      },
    );
    const right = settingsFor({ HF_TOKEN: "hf_right" });
    await resolveModel("some-org/gated", right);
    await resolveModel("some-org/private", right);
    const elsewhere = hub.requests.filter(({ host }) => host === "cdn");
    assert.ok(elsewhere.length >= 2);
    assert.ok(
      elsewhere.every(({ authorization }) => authorization === undefined),
      "the token went to another host",
    );
  });
});

test("offline and not cached: the error names the file, and no request is made", () =>
  withHub({}, async ({ requested, with: settingsFor }) => {
    await assert.rejects(
      resolveModel("some-org/tiny", settingsFor({ HF_HUB_OFFLINE: "1" })),
      saying(
        /offline, and config.json of model "some-org\/tiny" is not in the cache.*HF_HUB_OFFLINE/,
      ),
    );
    assert.deepEqual(requested(), []);
  }));

test("no network: the error says so at once", () =>
  withHub({}, async ({ hub, settings }) => {
    await hub.close();
    await assert.rejects(resolveModel("some-org/tiny", settings), (error: UserError) => {
      assert.equal(error.exitCode, 1);
      return saying(/no network: cannot reach .* for model "some-org\/tiny".*local folder/)(error);
    });
  }));

test("an answer that no hub gives is called so", () =>
  withHub(
    { fault: () => ({ status: 200, headers: { "content-type": "text/html" } }) },
    async ({ settings }) => {
      await assert.rejects(
        resolveModel("some-org/tiny", settings),
        saying(/does not answer as a hub does.*login page/),
      );
    },
  ));

test("an existing folder wins over a name, hf: means the hub, and a path that is none is told", () =>
  withHub({}, async ({ settings, cacheDir }) => {
    const folder = join(cacheDir, "..", "folder");
    await mkdir(folder, { recursive: true });
    await assert.rejects(
      resolveModel(folder, settings),
      saying(/has no config.json.*name the folder that holds config.json/),
    );
    await writeFile(join(folder, "config.json"), "{}");
    assert.equal((await resolveModel(folder, settings)).folder, folder);
    await assert.rejects(
      resolveModel(join(folder, "config.json"), settings),
      /is a file, expected the folder/,
    );
    await assert.rejects(resolveModel(join(folder, "none"), settings), /there is no folder/);
    const { folder: cached } = await resolveModel("hf:some-org/tiny", settings);
    assert.ok(cached.includes("models--some-org--tiny"));
  }));

test("where links cannot be made, snapshots hold the files themselves", () =>
  withHub({}, async ({ cacheDir, requested, with: settingsFor }) => {
    const settings = settingsFor({ HF_HUB_DISABLE_SYMLINKS: "1" });
    const { folder } = await resolveModel("some-org/tiny", settings);
    assert.ok((await lstat(join(folder, "model.safetensors"))).isFile());
    assert.deepEqual(await readdir(join(cacheDir, "models--some-org--tiny/blobs")), []);
    requested();
    await resolveModel("some-org/tiny", settings);
    assert.deepEqual(requested(), []);
  }));
