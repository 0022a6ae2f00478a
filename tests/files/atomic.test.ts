// Atomic files: the old content or the new, never a part, and nothing beside it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { findDataFiles } from "../../src/data/readers/files.ts";
import {
  readIfPresent,
  replaceFile,
  replaceFolder,
  temporaryName,
  temporaryOwner,
  writeFileAtomic,
} from "../../src/files/atomic.ts";
import { readJson } from "../../src/files/json.ts";
import { openSafetensors } from "../../src/files/safetensors.ts";
import { temporaryFolder } from "../helpers.ts";
import { folderOf } from "./safetensors-files.ts";

test("a file is written and replaced", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "a.json");
  await writeFileAtomic(path, "µ");
  assert.equal(await readFile(path, "utf8"), "µ");
  await writeFileAtomic(path, new Uint8Array([1, 2]));
  assert.deepEqual([...(await readFile(path))], [1, 2]);
  assert.deepEqual(await readdir(folder), ["a.json"]);
});

test("a failure on the way leaves the old file and nothing beside it", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "a.json");
  await writeFile(path, "old");
  const failing = replaceFile(path, async (handle) => {
    await handle.writeFile("half");
    throw new Error("on the way");
  });
  await assert.rejects(failing, /^Error: on the way$/);
  assert.equal(await readFile(path, "utf8"), "old");
  assert.deepEqual(await readdir(folder), ["a.json"]);
});

test("what a killed writer left is settled by the next one, what another writes or another machine stays", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "blocks");
  const of = (pid: number, name = temporaryName(path)) => name.replace(/tmp-\d+/, `tmp-${pid}`);
  const dead = [of(99_999_999), of(99_999_999, temporaryName(join(folder, "other.tokens")))];
  const elsewhere = `${path}.tmp-99999999-0123abcd0123abcd`;
  const alive = [temporaryName(path), of(process.ppid), elsewhere];
  for (const each of [path, `${path}.replaced`, dead[0]!, ...alive])
    await folderOf(each, { content: "damaged" });
  await writeFile(dead[1]!, "half");
  await replaceFolder(path, (made) => writeFile(join(made, "content"), "whole"));
  assert.equal(await readFile(join(path, "content"), "utf8"), "whole");
  assert.deepEqual(
    (await readdir(folder)).sort(),
    [path, ...alive].map((each) => basename(each)).sort(),
  );
  await writeFile(dead[1]!, "half");
  await writeFileAtomic(join(folder, "a.tokens"), "");
  assert.equal(existsSync(dead[1]!), false);
});

test("what the system refuses is told as a user's matter, exit code 1", async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, "file"), "");
  await mkdir(join(folder, "folder", "inside"), { recursive: true });
  const cases: readonly [path: string, sentence: RegExp][] = [
    [join(folder, "absent", "a"), /^cannot write .*absent.a: its folder does not exist \(ENOENT/],
    [join(folder, "file", "a"), /^cannot write .*file.a: a part of its path is a file \(ENOTDIR/],
    [join(folder, "folder"), /^cannot write .*folder: it is a folder \(EISDIR/],
  ];
  for (const [path, sentence] of cases) {
    await assert.rejects(writeFileAtomic(path, ""), (error) => {
      assert.ok(error instanceof UserError && error.exitCode === 1);
      assert.match(error.message, sentence);
      return true;
    });
  }
  assert.deepEqual((await readdir(folder)).sort(), ["file", "folder"]);
});

const skip = process.platform === "win32" && "no pipes among files";
test("a pipe for a file is refused, not waited for", { skip }, async (t) => {
  const folder = await temporaryFolder(t);
  const pipe = (name: string) => {
    execFileSync("mkfifo", [join(folder, name)]);
    return join(folder, name);
  };
  const reads = [
    readIfPresent(pipe("tokenizer.json")),
    readJson(pipe("config.json")),
    openSafetensors(pipe("x.safetensors")),
    openSafetensors(pipe("x.index.json")),
    findDataFiles(pipe("x.txt")),
    findDataFiles(folder),
  ];
  for (const read of reads)
    await assert.rejects(
      read,
      (error) => error instanceof UserError && error.message.endsWith("is not a file"),
    );
});

test("temporary names tell their process, other names do not", () => {
  assert.equal(temporaryOwner(temporaryName("/x/step-000200")), process.pid);
  assert.notEqual(temporaryName("a"), temporaryName("a"));
  for (const name of ["step-000200", "a.tmp", "a.tmp-12", "a.tmp-12-xyz", ".tmp-1-0123abcd.json"]) {
    assert.equal(temporaryOwner(name), undefined);
  }
});
