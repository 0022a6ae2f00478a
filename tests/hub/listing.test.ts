// What a hub says of a repository's state: pages, endless ones too, nonsense, and a branch that has moved on.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startHub, type Files, type SeenRequest, type TreeEntry } from "../hub-server.ts";
import { MODEL_FILES, saying, withHub, resolveModel } from "./fixture.ts";

test("a listing of several pages is read to its end", () => {
  const link = '<?recursive=true&cursor=2>; rel="next"';
  const fault = ({ path }: SeenRequest, nth: number) =>
    path.includes("/tree/") && nth === 1 ? { headers: { link } } : undefined;
  return withHub({ fault }, async ({ settings, requested }) => {
    await resolveModel("some-org/tiny", settings);
    assert.equal(requested().filter((path) => path.includes("/tree/")).length, 2);
  });
});

test("a listing without end is given up, whether it repeats itself, goes on, or swells", async () => {
  const cases = [
    [() => "?recursive=true", 4, 2, /no end within 1 pages/],
    [(nth: number) => `?cursor=${nth}`, 4, 1001, /no end within 1000 pages/],
    [(nth: number) => `?cursor=${nth}`, 2 ** 22, 18, /more than 67108864 bytes/],
  ] as const;
  for (const [next, length, most, expected] of cases) {
    const fault = ({ path }: SeenRequest, nth: number) =>
      path.includes("/tree/") ? { headers: { link: `<${next(nth)}>; rel="next"` } } : undefined;
    const alterTree = ([entry]: TreeEntry[]) => [{ ...entry!, path: "x".repeat(length) }];
    const models = { "some-org/endless": { revisions: { main: MODEL_FILES }, alterTree } };
    await withHub({ models, fault }, async ({ settings, requested }) => {
      await assert.rejects(resolveModel("some-org/endless", settings), saying(expected));
      assert.ok(requested().length <= most + 1);
    });
  }
});

test("a listing whose sizes or checksums are none is refused in one sentence", async () => {
  const lies = [
    { lfs: { oid: "0".repeat(64), size: "12", pointerSize: 1 } },
    { lfs: { oid: "../../x", size: 12, pointerSize: 1 } },
    { size: -1, lfs: undefined },
    { oid: ["0".repeat(40)] },
    { path: null },
  ];
  for (const lie of lies) {
    const alterTree = (entries: TreeEntry[]) =>
      entries.map((entry) => ({ ...entry, ...lie }) as TreeEntry);
    const models = { "some-org/odd": { revisions: { main: MODEL_FILES }, alterTree } };
    await withHub({ models }, ({ settings }) =>
      assert.rejects(resolveModel("some-org/odd", settings), saying(/does not answer as a hub/)),
    );
  }
});

test("a branch that is cached is asked for again where that is wished, a commit and offline never", () => {
  const revisions: Record<string, Files> = { main: MODEL_FILES };
  return withHub({ models: { "some-org/moving": { revisions } } }, async (fixture) => {
    const { settings, cacheDir, requested } = fixture;
    const { commit } = await resolveModel("some-org/moving", settings);
    const newer = { ...MODEL_FILES, "config.json": '{"model_type":"llama"}' };
    const later = await startHub({ models: { "some-org/moving": newer } });
    try {
      const refreshing = { ...settings, endpoint: later.url, refresh: true };
      const offline = { ...refreshing, offline: true };
      assert.equal((await resolveModel("some-org/moving", offline)).commit, commit);
      assert.equal((await resolveModel(`some-org/moving@${commit}`, refreshing)).commit, commit);
      assert.deepEqual(later.requests, []);
      requested();
      const notes: string[] = [];
      const options = { onNote: (note: string) => void notes.push(note) };
      const moved = await resolveModel("some-org/moving", refreshing, options);
      await resolveModel("some-org/moving", refreshing, options);
      assert.equal(notes.length, 1);
      const [now, then] = [moved.commit, commit].map((hash) => hash.slice(0, 8));
      assert.ok(notes[0]?.includes(`main is now ${now}, the cached one was ${then}`), notes[0]);
      assert.equal(moved.commit, later.commitOf("some-org/moving"));
      const weights = later.requests.filter(({ host }) => host === "cdn");
      assert.deepEqual(weights, [], "the weights, which are the same, were fetched again");
      const ref = join(cacheDir, "models--some-org--moving/refs/main");
      assert.equal(await readFile(ref, "utf8"), moved.commit);
    } finally {
      await later.close();
    }
  });
});
