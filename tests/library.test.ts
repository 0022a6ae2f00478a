// The program of docs/library.md, from a packed tarball in an empty folder: its types, and what it does.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { temporaryFolder } from "./helpers.ts";
import { readJson } from "./run/small-run.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const execute = promisify(execFile);

/** Runs a program in a folder; a failure shows what it printed. */
async function run(cwd: string, program: string, ...args: string[]): Promise<string> {
  const env = {
    ...process.env,
    npm_config_update_notifier: "false",
    npm_config_offline: "true",
    npm_config_ignore_scripts: "false",
  };
  const { stdout } = await execute(program, args, { cwd, env }).catch((error: unknown) => {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    return assert.fail(`${program} ${args.join(" ")}\n${stdout}\n${stderr}`);
  });
  return stdout;
}

/** Packs a copy, so that nobody's dist/ is replaced, and installs the tarball as npm would. */
async function installPacked(folder: string): Promise<void> {
  const [copy, modules] = [join(folder, "checkout"), join(folder, "node_modules")];
  const { name, dependencies, files } = (await readJson(join(root, "package.json"))) as {
    name: string;
    dependencies: Record<string, string>;
    files: string[];
  };
  const packed = files.filter((name) => !name.startsWith("dist"));
  for (const part of [
    "package.json",
    "tsconfig.json",
    "tsconfig.build.json",
    "src",
    "cli",
    ...packed,
  ])
    await cp(join(root, part), join(copy, part), { recursive: true });
  await symlink(join(root, "node_modules"), join(copy, "node_modules"));
  await run(copy, "npm", "pack", "--silent", "--pack-destination", folder);
  const [tarball] = (await readdir(folder)).filter((name) => name.endsWith(".tgz"));
  const installed = join(modules, name);
  await mkdir(installed, { recursive: true });
  await run(folder, "tar", "-xzf", tarball!, "-C", installed, "--strip-components=1");
  for (const library of [...Object.keys(dependencies), "@types/node"]) {
    await mkdir(dirname(join(modules, library)), { recursive: true });
    await symlink(join(root, "node_modules", library), join(modules, library));
  }
}

test("the documented program runs from a tarball, and its types are right", async (t) => {
  const folder = await temporaryFolder(t);
  const page = await readFile(join(root, "docs", "library.md"), "utf8");
  const example = /```js\n([^]*?)```/.exec(page)![1]!;
  await installPacked(folder);
  await writeFile(join(folder, "example.mjs"), example);
  // A type that is wrong on purpose shows that the package has types at all.
  await writeFile(join(folder, "example.mts"), example);
  await writeFile(join(folder, "wrong.mts"), example.replace("steps: 20", 'steps: "20"'));

  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  const options = "--noEmit --strict --module nodenext --target es2023 --types node".split(" ");
  const check = (file: string) => run(folder, process.execPath, tsc, ...options, file);
  await check("example.mts");
  await assert.rejects(check("wrong.mts"), /wrong\.mts.*'string' is not assignable/);

  const printed = await run(folder, process.execPath, "example.mjs");
  const lines = printed.trimEnd().split("\n");
  assert.equal(lines.filter((line) => /^step \d+: \d\.\d{4} nats$/.test(line)).length, 20);
  const [before, after] = /^([\d.]+) before, ([\d.]+) after 20 steps$/m.exec(printed)!.slice(1);
  assert.ok(Number(after) < Number(before), printed);
  // What evaluate finds is what the report says, as the commands promise.
  assert.ok(lines.at(-1)!.startsWith(`${after} ± `), printed);
});
