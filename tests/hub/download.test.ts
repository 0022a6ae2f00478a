// Downloads that go wrong on the way: interrupted, corrupted, refused, silent, crowded, stopped.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import type { UserError } from "../../src/core/errors.ts";
import type { DownloadProgress } from "../../src/hub/environment.ts";
import { withLock } from "../../src/files/lock.ts";
import type { Fault, SeenRequest, TreeEntry } from "../hub-server.ts";
import { content, MODEL_FILES, WEIGHTS, withHub, type Fixture, resolveModel } from "./fixture.ts";

const NAME = "some-org/tiny";
const SHA256 = createHash("sha256").update(WEIGHTS).digest("hex");

const onCdn = (fault: (nth: number) => Fault | undefined) => (request: SeenRequest, nth: number) =>
  request.host === "cdn" ? fault(nth) : undefined;

const ranges = ({ hub }: Fixture) =>
  hub.requests.filter(({ host }) => host === "cdn").map(({ range }) => range);

async function assertSound(folder: string): Promise<void> {
  assert.deepEqual(new Uint8Array(await readFile(join(folder, "model.safetensors"))), WEIGHTS);
  const blobs = await readdir(join(folder, "../../blobs"));
  assert.deepEqual(
    blobs.filter((name) => name.endsWith(".incomplete")),
    [],
  );
}

test("a download that breaks off goes on from where it was, as often as it gets further", () =>
  withHub(
    { fault: onCdn((nth) => (nth <= 7 ? { cutAfterBytes: 30_000 } : undefined)) },
    async (fixture) => {
      const { folder } = await resolveModel(NAME, fixture.settings);
      await assertSound(folder);
      const asked = ranges(fixture);
      assert.equal(asked.length, 8);
      assert.deepEqual(asked.slice(0, 3), [undefined, "bytes=30000-", "bytes=60000-"]);
    },
  ));

test("what an earlier run left is not fetched again", () =>
  withHub({ fault: onCdn((nth) => (nth === 1 ? { status: 404 } : undefined)) }, async (fixture) => {
    const { settings, cacheDir } = fixture;
    const blobs = join(cacheDir, "models--some-org--tiny/blobs");
    await mkdir(blobs, { recursive: true });
    await writeFile(join(blobs, `${SHA256}.incomplete`), WEIGHTS.subarray(0, 200_000));
    await assert.rejects(resolveModel(NAME, settings), /has no file "model.safetensors"/);
    const seen: DownloadProgress[] = [];
    const { folder } = await resolveModel(NAME, settings, { onProgress: (p) => void seen.push(p) });
    await assertSound(folder);
    assert.deepEqual(ranges(fixture), ["bytes=200000-", "bytes=200000-"]);
    const weights = seen.filter(({ file }) => file === "model.safetensors");
    assert.equal(weights[0]?.receivedBytes, 200_000);
    assert.deepEqual(weights.at(-1), {
      file: "model.safetensors",
      receivedBytes: 300_000,
      totalBytes: 300_000,
    });
  }));

test("a bad part that an earlier run left is found by the checksum and fetched anew", () =>
  withHub({}, async (fixture) => {
    const blobs = join(fixture.cacheDir, "models--some-org--tiny/blobs");
    await mkdir(blobs, { recursive: true });
    await writeFile(join(blobs, `${SHA256}.incomplete`), content(100_000).fill(7));
    await assertSound((await resolveModel(NAME, fixture.settings)).folder);
    assert.deepEqual(ranges(fixture), ["bytes=100000-", undefined]);
  }));

test("a server without ranges sends the whole file again", () =>
  withHub(
    { fault: onCdn((nth) => (nth === 1 ? { cutAfterBytes: 50_000 } : { ignoreRange: true })) },
    async ({ settings }) => assertSound((await resolveModel(NAME, settings)).folder),
  ));

for (const [file, hash] of [
  ["model.safetensors", "sha256"],
  ["tokenizer.json", "Git's hash"],
] as const)
  test(`a corrupted ${file} is refused by ${hash}, and leaves nothing behind`, () => {
    const isHit = ({ host, path }: SeenRequest) =>
      host === "cdn" || path.endsWith("/tokenizer.json");
    const fault = (request: SeenRequest) =>
      isHit(request) && (hash === "sha256") === (request.host === "cdn")
        ? { corrupt: true }
        : undefined;
    return withHub({ fault }, async ({ settings, cacheDir }) => {
      await assert.rejects(resolveModel(NAME, settings), (error: UserError) => {
        assert.ok(
          error.message.startsWith(`${file} arrived corrupted: its checksum`),
          error.message,
        );
        assert.equal(error.exitCode, 1);
        return true;
      });
      const left = await readdir(cacheDir, { recursive: true });
      assert.deepEqual(
        left.filter((path) => path.endsWith(file) || path.endsWith(".incomplete")),
        [],
      );
    });
  });

test("a file shorter or longer than its listing is refused", async () => {
  for (const difference of [1, -1]) {
    const source = {
      revisions: { main: MODEL_FILES },
      alterTree: (entries: TreeEntry[]) =>
        entries.map((entry) =>
          entry.path === "config.json" ? { ...entry, size: entry.size + difference } : entry,
        ),
    };
    await withHub({ models: { [NAME]: source } }, async ({ settings }) => {
      await assert.rejects(resolveModel(NAME, settings), /config.json/);
    });
  }
});

test("429 and 5xx are repeated with the wait that the hub asks for; others are not", async () => {
  const busy = { status: 429, headers: { "retry-after": "0" } };
  await withHub(
    { fault: (_, nth) => (nth === 1 ? busy : nth === 2 ? { status: 503 } : undefined) },
    async ({ settings, requested }) => {
      await assertSound((await resolveModel(NAME, settings)).folder);
      assert.equal(requested().filter((path) => path.endsWith("/config.json")).length, 3);
    },
  );
  await withHub({ fault: () => busy }, async ({ settings, requested }) => {
    await assert.rejects(resolveModel(NAME, settings), /status 429, at .*: it asks to slow down/);
    assert.equal(requested().length, 5);
  });
  const patient = { status: 429, headers: { "retry-after": "3600" } };
  await withHub({ fault: () => patient }, async ({ settings, requested }) => {
    await assert.rejects(resolveModel(NAME, settings), /asks to slow down/);
    assert.equal(requested().length, 1);
  });
  await withHub({ fault: () => ({ status: 400 }) }, async ({ settings, requested }) => {
    await assert.rejects(resolveModel(NAME, settings), /answered status 400/);
    assert.equal(requested().length, 1);
  });
});

test("a download that falls silent is broken off and goes on", () =>
  withHub(
    { fault: onCdn((nth) => (nth <= 2 ? { stall: true } : undefined)) },
    async ({ with: settingsFor }) => {
      const settings = settingsFor({ HF_HUB_DOWNLOAD_TIMEOUT: "0.1" });
      await assertSound((await resolveModel(NAME, settings)).folder);
    },
  ));

test("a listing that takes too long is broken off", () =>
  withHub({ fault: () => ({ stall: true }) }, async ({ with: settingsFor, requested }) => {
    const settings = settingsFor({ HF_HUB_ETAG_TIMEOUT: "0.05" });
    const expected = /broke off at model "some-org\/tiny" \(.*timeout/;
    await assert.rejects(resolveModel(NAME, settings), expected);
    assert.equal(requested().length, 5);
  }));

test("no room on the disk is told before anything is fetched", () => {
  const source = {
    revisions: { main: MODEL_FILES },
    alterTree: (entries: TreeEntry[]) =>
      entries.map((entry) => (entry.lfs ? { ...entry, lfs: { ...entry.lfs, size: 1e16 } } : entry)),
  };
  return withHub({ models: { [NAME]: source } }, async (fixture) => {
    await assert.rejects(resolveModel(NAME, fixture.settings), (error: UserError) => {
      assert.match(
        error.message,
        /^cannot write model.safetensors \(10000000000000000 bytes\) into .*: the disk is full/,
      );
      assert.match(error.hint ?? "", /HF_HOME/);
      return true;
    });
    assert.deepEqual(ranges(fixture), []);
  });
});

test("a stop keeps what has arrived", () =>
  withHub({ fault: onCdn((nth) => (nth === 1 ? { delayMs: 50 } : undefined)) }, async (fixture) => {
    const stop = new AbortController();
    const onProgress = ({ file, receivedBytes }: DownloadProgress) => {
      if (file === "model.safetensors" && receivedBytes > 0)
        stop.abort(new Error("stopped by the user"));
    };
    const options = { signal: stop.signal, onProgress };
    await assert.rejects(resolveModel(NAME, fixture.settings, options), /stopped by the user/);
    await assertSound((await resolveModel(NAME, fixture.settings)).folder);
    assert.match(ranges(fixture)[1] ?? "", /^bytes=[1-9]/);
  }));

test("two downloads of the same model at once, in one process, fetch each file once", () =>
  withHub({ fault: () => ({ delayMs: 20 }) }, async (fixture) => {
    const [a, b] = await Promise.all([
      resolveModel(NAME, fixture.settings),
      resolveModel(NAME, fixture.settings),
    ]);
    assert.deepEqual(a, b);
    await assertSound(a.folder);
    assert.equal(ranges(fixture).length, 1);
  }));

test("and so do two processes", () =>
  withHub({ fault: onCdn(() => ({ delayMs: 700 })) }, async (fixture) => {
    const { endpoint, cacheDir } = fixture.settings;
    const source = new URL("../../src/hub/", import.meta.url).href;
    const script = `
      import { hubSettings } from ${JSON.stringify(`${source}environment.ts`)};
      import { resolveModel } from ${JSON.stringify(`${source}model.ts`)};
      const settings = hubSettings({ HF_ENDPOINT: ${JSON.stringify(endpoint)}, HF_HUB_CACHE: ${JSON.stringify(cacheDir)} }, "/");
      process.stdout.write(await resolveModel("${NAME}", settings));`;
    const run = async () => {
      const args = ["--import", "tsx", "--input-type=module", "-e", script];
      return (await promisify(execFile)(process.execPath, args)).stdout;
    };
    const [a, b] = await Promise.all([run(), run()]);
    assert.equal(a, b);
    await assertSound(a);
    assert.equal(ranges(fixture).length, 1);
  }));

test("the lock of a dead process is taken over, that of a living one is waited for", () =>
  withHub({}, async ({ cacheDir }) => {
    const path = join(cacheDir, "x.lock");
    await mkdir(cacheDir, { recursive: true });
    await writeFile(path, `${hostname()} 2147483646 dead`);
    const order: string[] = [];
    const hold = (name: string) =>
      withLock(path, async () => {
        order.push(`${name} in`);
        await new Promise((resolve) => setTimeout(resolve, 30));
        order.push(`${name} out`);
      });
    await Promise.all([hold("a"), hold("b")]);
    assert.match(order.join(), /^(a in,a out,b in,b out|b in,b out,a in,a out)$/);
    const stop = AbortSignal.timeout(50);
    await withLock(path, () => assert.rejects(withLock(path, async () => undefined, stop)));
    assert.deepEqual(await readdir(cacheDir), []);
  }));
