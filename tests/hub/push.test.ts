// Pushing to a hub on loopback: what arrives is what lies here, byte for byte, and nothing is sent twice or by mistake.

import assert from "node:assert/strict";
import { cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { push } from "../../src/export/push.ts";
import { placesOf } from "../../src/model/places.ts";
import { openSafetensors, readBytes } from "../../src/files/safetensors.ts";
import { temporaryFolder } from "../helpers.ts";
import { openEngine } from "../../src/engines/index.ts";
import { fixture, smallRun } from "../run/small-run.ts";
import { type Fixture, resolveModel, saying, withHub } from "./fixture.ts";

const FILES = ["config.json", "model.safetensors"];
const HF_TOKEN = "secret_that_never_shows";
const repo = "some-org/pushed";

/** A small model's folder of its own. */
async function modelFolder(to: string, card = "# mine"): Promise<string> {
  await mkdir(to, { recursive: true });
  for (const name of FILES) await cp(join(fixture(), name), join(to, name));
  if (card) await writeFile(join(to, "README.md"), card);
  return to;
}

type Options = Partial<Parameters<typeof push>[2]>;

/** Pushes, and gives the files that were sent to the storage by name of the request. */
async function pushed(
  { with: settings }: Fixture,
  folder: string,
  options: Options = {},
  env = {},
) {
  const [sent, notes]: [string[], string[]] = [[], []];
  const places = placesOf({
    onNote: (note) => notes.push(note),
    hub: settings({ HF_TOKEN, ...env }),
    onProgress: (at) => {
      if (at && "file" in at && at.receivedBytes === at.totalBytes) sent.push(at.file);
    },
  });
  const result = await push(folder, places, { repo, ...options });
  const states = Object.fromEntries(result.files.map(({ name, state }) => [name, state]));
  return { ...result, states, sent, notes };
}

for (const transfer of ["basic", "multipart"] as const)
  test(`a model arrives as it is (${transfer}), and then only what has changed`, async (t) => {
    const folder = await modelFolder(join(await temporaryFolder(t), "model"));
    await writeFile(join(folder, ".env"), "a secret");
    await withHub({ models: {}, token: HF_TOKEN, writable: { transfer } }, async (at) => {
      const { hub } = at;
      const dry = await pushed(at, folder, { isDryRun: true });
      assert.equal(hub.filesOf(repo), undefined);
      const all = { "README.md": "new", "config.json": "new", "model.safetensors": "new" };
      assert.deepEqual([dry.states, dry.commit, dry.isNew], [all, null, true]);

      const first = await pushed(at, folder, { message: "The first" });
      assert.equal(first.commit, hub.commitOf(repo));
      assert.deepEqual(hub.written.titles, ["The first"]);
      assert.ok(first.sent.includes("model.safetensors"));
      for (const name of [...FILES, "README.md"])
        assert.deepEqual(
          Buffer.from(hub.filesOf(repo)!.get(name)!),
          await readFile(join(folder, name)),
        );
      assert.equal(hub.filesOf(repo)!.has(".env"), false);
      // As any program of the hub's would fetch it.
      const { folder: fetched } = await resolveModel(repo, at.settings);
      const weights = join(fetched, "model.safetensors");
      assert.deepEqual(await readFile(weights), await readFile(join(folder, "model.safetensors")));

      const again = await pushed(at, folder);
      assert.deepEqual([again.commit, again.sentBytes, again.sent], [null, 0, []]);
      await writeFile(join(folder, "README.md"), "# more");
      const { states } = await pushed(at, folder);
      const rest = { "config.json": "unchanged", "model.safetensors": "unchanged" };
      assert.deepEqual(states, { "README.md": "changed", ...rest });
      assert.equal(String(hub.filesOf(repo)!.get("README.md")), "# more");
      await pushed(at, folder, { revision: "v2" });
      assert.deepEqual(
        [...hub.filesOf(repo, "v2")!.keys()].sort(),
        [...hub.filesOf(repo)!.keys()].sort(),
      );
      // The token goes to the hub and nowhere else.
      for (const { host, authorization } of hub.requests)
        if (host === "cdn") assert.equal(authorization, undefined);
    });
  });

test("by Xet the pieces and their list go to the content store, with its own token", async (t) => {
  const folder = await modelFolder(join(await temporaryFolder(t), "model"));
  await withHub({ models: {}, token: HF_TOKEN, writable: { transfer: "xet" } }, async (at) => {
    // The store keeps pieces, so that this hub knows no such object in the end.
    await assert.rejects(
      pushed(at, folder),
      saying(/answered status 400, .*: no model.safetensors/),
    );
    assert.match(at.hub.written.stored.join(), /v1\/xorbs\/default\/\w{64},.*v1\/shards/);
    const store = at.hub.requests.filter(({ host }) => host === "cdn");
    assert.ok(store.every(({ authorization }) => authorization === "Bearer xet_secret"));
    await assert.rejects(pushed(at, folder, {}, { HF_HUB_DISABLE_XET: "1" }), saying(/status 400/));
  });
});

test("a push that broke off sends no large file twice", async (t) => {
  const folder = await modelFolder(join(await temporaryFolder(t), "model"));
  let isBroken = true;
  const fault = ({ path }: { path: string }) =>
    isBroken && path.includes("/commit/") ? { status: 418 } : undefined;
  await withHub({ models: {}, token: HF_TOKEN, writable: {}, fault }, async (at) => {
    await assert.rejects(pushed(at, folder), saying(/status 418/));
    assert.equal(at.hub.written.stored.length, 1);
    isBroken = false;
    await pushed(at, folder);
    assert.equal(at.hub.written.stored.length, 1);
    assert.ok(at.hub.filesOf(repo)!.has("model.safetensors"));
  });
});

test("what passes is tried again, and a stop is a stop", async (t) => {
  const folder = await modelFolder(join(await temporaryFolder(t), "model"));
  const fault = ({ path }: { path: string }, nth: number) =>
    nth === 1 && /upload|commit/.test(path) ? { status: 503 } : undefined;
  await withHub({ models: {}, token: HF_TOKEN, writable: {}, fault }, async (at) => {
    const stop = new AbortController();
    const places = { ...placesOf({ hub: at.with({ HF_TOKEN }) }), signal: stop.signal };
    const stopped = push(
      folder,
      { ...places, onProgress: (what) => what && stop.abort() },
      { repo },
    );
    await assert.rejects(stopped, (error) => error === stop.signal.reason);
    assert.equal(at.hub.filesOf(repo)?.has("model.safetensors"), false);
    assert.ok((await pushed(at, folder)).commit);
  });
});

test("each refusal is a sentence", async (t) => {
  const root = await temporaryFolder(t);
  const folder = await modelFolder(join(root, "model"));
  const models = { "some-org/public": { "README.md": "#" } };
  await withHub({ models, token: HF_TOKEN, writable: {} }, async (at) => {
    const refused = (pattern: RegExp, options: Options = {}, env = {}, from = folder) =>
      assert.rejects(pushed(at, from, options, env), saying(pattern));
    await refused(/no token: .* HF_TOKEN/, {}, { HF_TOKEN: "" });
    await refused(/refuses the token in use \(status 401\) for model/, {}, { HF_TOKEN: "other" });
    await refused(/offline: nothing can be pushed/, {}, { HF_HUB_OFFLINE: "1" });
    const nowhere = { HF_ENDPOINT: "http://no-such-host.invalid" };
    await refused(/no network: .*or list what there is to push: --dry-run with/, {}, nowhere);
    await refused(/"gpt2" cannot be a repository of the hub \| expected owner/, { repo: "gpt2" });
    await refused(/"a\/..\/b" cannot be/, { repo: "a/../b" });
    await refused(/exists and is public/, { repo: "some-org/public", isPrivate: true });
    await refused(/there is no folder/, {}, {}, join(root, "none"));
    await refused(/config.json/, {}, {}, await modelFolderWithout(root, "config.json"));
    await refused(/safetensors/, {}, {}, await modelFolderWithout(root, "model.safetensors"));
    const cut = await modelFolder(join(root, "cut"));
    const bytes = await readFile(join(cut, "model.safetensors"));
    await writeFile(join(cut, "model.safetensors"), bytes.subarray(0, -4));
    await refused(/model.safetensors/, {}, {}, cut);
    const strays = [
      "step-000200/state.json",
      "a.tokens",
      "metrics.jsonl",
      "x.tmp-12-0a0a0a0a0a0a0a0a",
    ];
    for (const [i, stray] of strays.entries()) {
      const path = await modelFolder(join(root, `stray${i}`));
      await mkdir(join(path, "step-000200"), { recursive: true });
      await writeFile(join(path, stray), "{}");
      await refused(/which is not pushed/, {}, {}, path);
    }
    const linked = await modelFolder(join(root, "linked"));
    await symlink("/etc/hostname", join(linked, "name.json"));
    await refused(/name.json is a link or no file, which is not pushed/, {}, {}, linked);
    await mkdir(join(root, "run"));
    await writeFile(join(root, "run/recipe.yaml"), "base: x");
    await refused(/the run .* is not finished: no final/, {}, {}, join(root, "run"));
    const offline = await pushed(at, folder, { isDryRun: true }, { HF_HUB_OFFLINE: "1" });
    assert.equal(offline.states["config.json"], "not compared");
    assert.equal(at.hub.filesOf(repo), undefined);
    await pushed(at, folder, { isPrivate: true });
    assert.equal(at.hub.written.isPrivate(repo), true);
  });
  const forbid = ({ path }: { path: string }) =>
    path.includes("preupload") ? { status: 403 } : undefined;
  await withHub({ models: {}, token: HF_TOKEN, writable: {}, fault: forbid }, async (at) => {
    await assert.rejects(pushed(at, folder), saying(/may not write to model "some-org\/pushed"/));
  });
});

async function modelFolderWithout(root: string, name: string): Promise<string> {
  const folder = await modelFolder(join(root, `no-${name}`));
  await rm(join(folder, name));
  return folder;
}

test("a folder without a card gets one on the way, and stays as it is", async (t) => {
  const folder = await modelFolder(join(await temporaryFolder(t), "model"), "");
  await withHub({ models: {}, token: HF_TOKEN, writable: {} }, async (at) => {
    await pushed(at, folder);
    const card = String(at.hub.filesOf(repo)!.get("README.md"));
    assert.match(card, /^---\n[^]*pipeline_tag: "text-generation"[^]*\n---\n[^]*# pushed/);
    await assert.rejects(readFile(join(folder, "README.md")));
  });
});

test("of a run its final adapter goes, with a card that says what it scored", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const engine = await openEngine("cpu", { threads: 1 });
  t.after(() => engine.dispose());
  const tune = ["temperatures", "lora"];
  const model = await modelFolder(join(folder, "../my-base"));
  await smallRun({ engine, folder, model, recipe: { steps: 2, final: "adapter", tune } });
  await withHub({ models: {}, token: HF_TOKEN, writable: {} }, async (at) => {
    const { notes } = await pushed(at, folder);
    const files = at.hub.filesOf(repo)!;
    assert.deepEqual([...files.keys()].sort(), [
      ".gitattributes",
      "README.md",
      "adapter_config.json",
      "adapter_model.safetensors",
      "ssa_adapter.safetensors",
      "ssa_config.json",
    ]);
    assert.match(String(files.get("README.md")), /## Perplexity[^]*\| before \|[^]*## Recipe/);
    // No path of this machine is published.
    assert.deepEqual(notes, [`what is pushed names its base my-base, not ${model}`]);
    for (const [name, bytes] of files) {
      assert.doesNotMatch(Buffer.from(bytes).toString("latin1"), /\/[^ ]+\/my-base/, name);
      if (!name.endsWith("config.json")) continue;
      const { base_model_name_or_path: base } = JSON.parse(String(bytes)) as Record<string, string>;
      assert.equal(base, "my-base");
    }
    assert.deepEqual((await pushed(at, folder)).sent, []);

    const config = join(model, "config.json");
    const json = JSON.parse(await readFile(config, "utf8")) as object;
    await writeFile(config, JSON.stringify({ ...json, _name_or_path: "some-org/base" }));
    const { states } = await pushed(at, folder);
    assert.equal(states["ssa_config.json"], "changed");
    assert.match(String(at.hub.filesOf(repo)!.get("README.md")), /base_model: "some-org\/base"/);
  });
});

for (const transfer of ["basic", "multipart"] as const)
  test(`of a run's final model no path of this machine goes (${transfer})`, async (t) => {
    const folder = join(await temporaryFolder(t), "run");
    const engine = await openEngine("cpu", { threads: 1 });
    t.after(() => engine.dispose());
    const model = await modelFolder(join(folder, "../my-base"));
    await smallRun({ engine, folder, model, recipe: { steps: 2 } });
    await withHub({ models: {}, token: HF_TOKEN, writable: { transfer } }, async (at) => {
      const { notes } = await pushed(at, folder);
      assert.deepEqual(notes, [`what is pushed names its base my-base, not ${model}`]);
      for (const [name, bytes] of at.hub.filesOf(repo)!)
        assert.doesNotMatch(Buffer.from(bytes).toString("latin1"), /\/[^ ]+\/my-base/, name);
      assert.deepEqual((await pushed(at, folder)).sent, []);

      const [here, there] = [join(folder, "final"), (await resolveModel(repo, at.settings)).folder];
      const [mine, theirs] = await Promise.all([here, there].map(openSafetensors));
      assert.equal(mine!.metadata["ssa_base_model"], model);
      const others = { ...mine!.metadata, ssa_base_model: "my-base" };
      assert.deepEqual({ ...theirs!.metadata }, others);
      assert.deepEqual([...theirs!.tensors.keys()], [...mine!.tensors.keys()]);
      for (const [name, info] of mine!.tensors)
        assert.deepEqual(await readBytes(theirs!.tensors.get(name)!), await readBytes(info), name);
    });
  });
