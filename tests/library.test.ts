// The program of docs/library.md, from a packed tarball in an empty folder: its types, and what it does.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
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
    HOME: cwd, // what is cached goes with the folder
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

/** Packs a copy, so that nobody's dist/ is replaced, and installs the tarball as npm would; the tarball's bytes. */
async function installPacked(folder: string): Promise<number> {
  const [copy, modules] = [join(folder, "checkout"), join(folder, "node_modules")];
  const { name, dependencies, files } = (await readJson(join(root, "package.json"))) as {
    name: string;
    dependencies: Record<string, string>;
    files: string[];
  };
  const packed = files.filter((name) => !/^dist|^!/.test(name));
  for (const part of [
    "package.json",
    "tsconfig.json",
    "tsconfig.build.json",
    "src",
    "cli",
    "scripts/build.ts",
    "README.md",
    "LICENSE",
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
  return (await stat(join(folder, tarball!))).size;
}

/** Only what is meant is in the package, in few bytes, and what its pages link is there. */
async function checkContent(installed: string, bytes: number): Promise<void> {
  assert.ok(bytes < 4e6, `the tarball has ${bytes} bytes`);
  const found = await readdir(installed, { recursive: true, withFileTypes: true });
  const files = found
    .filter((entry) => entry.isFile())
    .map((entry) => relative(installed, join(entry.parentPath, entry.name)).split(sep).join("/"));
  const meant = [
    /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|CITATION\.cff|CONTRIBUTING\.md|SECURITY\.md)$/,
    /^dist\/(cli|src)\/[\w/.-]+\.(js|js\.map|d\.ts|py)$/,
    /^recipes\/[\w/-]+\.yaml$/,
    /^checkpoints\/(README\.md|tiny-gpt2\/[\w.]+)$/,
    /^docs\/([\w-]+\.md|pictures\/[\w-]+\.png)$/,
  ];
  const isMeant = (file: string) => meant.some((pattern) => pattern.test(file));
  assert.deepEqual(
    files.filter((file) => !isMeant(file) || /\.test\.|fixtures/.test(file)),
    [],
  );
  for (const page of files.filter((file) => file.endsWith(".md"))) {
    const text = await readFile(join(installed, page), "utf8");
    for (const [, link] of text.matchAll(/(?:\]\(| src(?:set)?=")([^)\s#"]+)/g))
      if (!/^\w+:/.test(link!))
        assert.ok(existsSync(join(installed, dirname(page), link!)), `${page}: ${link}`);
  }
}

test("the documented program runs from a tarball, and its types are right", async (t) => {
  const folder = await temporaryFolder(t);
  const page = await readFile(join(root, "docs", "library.md"), "utf8");
  const [example, others] = Array.from(page.matchAll(/```js\n([^]*?)```/g), ([, code]) => code!);
  assert.ok(example && others);
  const bytes = await installPacked(folder);
  await checkContent(join(folder, "node_modules", "@selective-attention", "ssa"), bytes);
  await writeFile(join(folder, "example.mjs"), example);
  // A type that is wrong on purpose shows that the package has types at all.
  await writeFile(join(folder, "example.mts"), example);
  await writeFile(join(folder, "wrong.mts"), example.replace("steps: 20", 'steps: "20"'));

  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  const options = "--noEmit --strict --module nodenext --target es2023 --types node".split(" ");
  const check = (file: string) => run(folder, process.execPath, tsc, ...options, file);
  await check("example.mts");
  const sound = others.replaceAll("result.", "result!.").replaceAll("pairs[0].", "pairs[0]!.");
  await writeFile(join(folder, "others.mts"), sound);
  await check("others.mts");
  await assert.rejects(check("wrong.mts"), /wrong\.mts.*'string' is not assignable/);

  const printed = await run(folder, process.execPath, "example.mjs");
  const lines = printed.trimEnd().split("\n");
  assert.equal(lines.filter((line) => /^step \d+: \d\.\d{4} nats$/.test(line)).length, 20);
  const [before, after] = /^([\d.]+) before, ([\d.]+) after 20 steps$/m.exec(printed)!.slice(1);
  assert.ok(Number(after) < Number(before), printed);
  await writeFile(join(folder, "others.mjs"), others);
  const told = await run(folder, process.execPath, "others.mjs");
  assert.match(told, /^\d+ parameters, without temperatures\nThe nation.*\n/);
  assert.match(told, /\nexported: .*onnx\/model\.onnx/);
  assert.match(told, /\nnorms against temperatures: -?[\d.e-]+ %\n$/);
  // What evaluate finds is what the report says, as the commands promise.
  assert.ok(lines.at(-1)!.startsWith(`${after} ± `), printed);
});
