// What a terminal, a pipe, a signal or an old Node may do to any command.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { temporaryFolder } from "../helpers.ts";
import { fixture } from "../run/small-run.ts";
import { assertRefused, onlyJson, ssa } from "./program.ts";

const evaluate = ["eval", "--model", fixture(), "--data", "long.bin", "--device", "cpu", "--json"];

/** A folder with a token file of many windows. */
async function folderWithData(t: Parameters<typeof temporaryFolder>[0], numTokens: number) {
  const cwd = await temporaryFolder(t);
  await writeFile(
    join(cwd, "long.bin"),
    Uint16Array.from({ length: numTokens }, (_, i) => i % 40),
  );
  return cwd;
}

test("eval stops between two windows: exit 130, nothing on stdout, no baseline", async (t) => {
  const cwd = await folderWithData(t, 2_000_000);
  let isSent = false;
  const { code, stdout, stderr } = await ssa([...evaluate, "--save-baseline", "base.json"], {
    cwd,
    onStderr: (text, child) => {
      if (!isSent && text.includes("window 1 of")) isSent = child.kill("SIGINT");
    },
  });
  assert.deepEqual([code, stdout], [130, ""], stderr);
  assert.match(stderr, /^stopping after this window; once more to leave at once$/m);
  assert.ok(!existsSync(join(cwd, "base.json")));
});

test("a closed stderr does not end the work", async (t) => {
  const cwd = await folderWithData(t, 20_000);
  const { code, stdout } = await ssa(evaluate, {
    cwd,
    onStderr: (_, child) => void child.stderr!.destroy(),
  });
  assert.equal(code, 0);
  assert.equal(onlyJson(stdout)["numTokens"], 18_750);
});

test("a full disk behind stdout, and a closed stderr, end with a code that is not 0", async (t) => {
  if (process.platform === "win32") return t.skip("no /dev/full");
  const full = await ssa(["inspect", fixture(), "--json"], { script: 'exec "$@" >/dev/full' });
  assert.deepEqual([full.code, full.stdout], [1, ""]);
  assert.match(full.stderr, /^error: ENOSPC: no space left on device, write$/m);
  assert.doesNotMatch(full.stderr, /^\s+at /m);
  for (const closed of ["2>&-", "2>/dev/full"]) {
    const { code } = await ssa(["inspect", "no-model"], { script: `exec "$@" ${closed}` });
    assert.equal(code, 1, closed);
  }
});

const mount = (then: string) =>
  `exec unshare -rm sh -c 'mount -t tmpfs -o ro none "$PWD/ro" && ${then}' sh "$@"`;
const canMount = (cwd: string) => spawnSync("sh", ["-c", mount("true")], { cwd }).status === 0;

test("a read-only file system is named, and eval needs no cache", async (t) => {
  const cwd = await folderWithData(t, 500);
  await mkdir(join(cwd, "ro"));
  if (!canMount(cwd)) return t.skip("this user may not mount");
  const options = { cwd, env: { SSA_CACHE: join(cwd, "ro", "cache") }, script: mount('exec "$@"') };
  const generate = ["generate", "--model", "tiny-gpt2", "--prompt", "The", "--device", "cpu"];
  const refused = /: the file system is read-only .*\nhint: SSA_CACHE=DIR keeps exports elsewhere/;
  assertRefused(await ssa(generate, options), refused, 1);
  assertRefused(
    await ssa(["convert", "--model", fixture(), "--to", "onnx", "--out", "ro/a/b"], options),
    /cannot write .*ro\/a\/b: the file system is read-only/,
    1,
  );
  const { code, stderr } = await ssa(evaluate, options);
  assert.equal(code, 0, stderr);
});

test("doctor and the choice of a device tell of no device that this machine cannot have", async (t) => {
  if (process.platform !== "linux") return t.skip("another machine has other devices");
  const { stdout } = await ssa(["doctor"]);
  assert.match(stdout, /^cpu +(chosen|available)/m);
  assert.doesNotMatch(stdout, /^(dml|coreml)/m);
  if (!existsSync("/proc/driver/nvidia/version") && !existsSync("/dev/dxg"))
    assert.doesNotMatch(stdout, /^(cuda|tfjs:gpu)/m);
  const devices = onlyJson((await ssa(["doctor", "--json"])).stdout)["devices"] as unknown[];
  assert.ok(devices.length >= 9, "all of them for machines");
});

test("doctor shows what each cache takes, those of large copies where they are there", async (t) => {
  const cache = await temporaryFolder(t);
  await mkdir(join(cache, "quantized", "abc"), { recursive: true });
  await writeFile(join(cache, "quantized", "abc", "x"), "12345");
  await mkdir(join(cache, "gguf"));
  const { stdout } = await ssa(["doctor", "--json"], { env: { SSA_CACHE: cache } });
  const caches = onlyJson(stdout)["caches"] as Record<string, { sizeBytes: number }>;
  assert.deepEqual(Object.keys(caches), ["models", "tokens", "exports", "quantized", "gguf"]);
  assert.equal(caches["quantized"]!.sizeBytes, 5);
});

test("an older Node is refused in one line", async () => {
  const pretend =
    'Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.18.3" } })';
  const nodeArgs = ["--import", `data:text/javascript,${encodeURIComponent(pretend)}`];
  const ended = await ssa(["--help"], { nodeArgs });
  assertRefused(ended, /^error: ssa needs Node\.js 20\.19 or newer, this is \S+\n$/);
});

test("what comes from a file reaches the terminal without its control characters", async (t) => {
  const cwd = await temporaryFolder(t);
  await mkdir(join(cwd, "model"));
  await copyFile(join(fixture(), "model.safetensors"), join(cwd, "model", "model.safetensors"));
  await writeFile(join(cwd, "model", "config.json"), '{"model_type":"be\\u001b[2Jrt"}');
  const ended = await ssa(["inspect", "model"], { cwd, env: { FORCE_COLOR: "1" } });
  assertRefused(ended, /"be\\u001b\[2Jrt" is not supported/);
});

test("inspect __proto__ is one sentence", async () => {
  assertRefused(await ssa(["inspect", "__proto__"]), /^error: .*"__proto__".*$/m, 1);
});
