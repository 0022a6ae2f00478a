// The Tab key in a real bash, whose script asks the program; and the small commands about recipes and runs.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../../src/files/package-root.ts";
import { temporaryFolder } from "../helpers.ts";
import { assertRefused, onlyJson, ssa } from "./program.ts";

const hasBash = spawnSync("bash", ["--version"]).status === 0;

/** Of the package bash-completion, as far as the script uses it: the words at the cursor. */
const WORDS = `_get_comp_words_by_ref() {
  words=("\${COMP_WORDS[@]}") cword=$COMP_CWORD cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
}`;

test("bash completes commands, choices and paths", { skip: !hasBash }, async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, "demo-notes"));
  const { code, stdout } = await ssa(["complete", "bash"]);
  assert.equal(code, 0);
  await writeFile(join(folder, "completion.bash"), stdout);
  // The program, as a shell finds it.
  const main = join(packageRoot(), "cli/main.ts");
  const call = `#!/bin/sh\nexec "${process.execPath}" --import "${import.meta.resolve("tsx")}" "${main}" "$@"\n`;
  await writeFile(join(folder, "ssa"), call);
  await chmod(join(folder, "ssa"), 0o755);
  const complete = (...words: string[]) => {
    const typed = ["ssa", ...words].map((word) => `'${word}'`).join(" ");
    const script = `${WORDS}
source ./completion.bash
compopt() { :; }
COMP_WORDS=(${typed}) COMP_CWORD=${words.length}
$(complete -p ssa | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "\${COMPREPLY[@]}"`;
    const env = { ...process.env, PATH: `${folder}:${process.env["PATH"]}` };
    const { stdout, stderr } = spawnSync("bash", ["-c", script], { cwd: folder, env });
    assert.equal(String(stderr), "");
    return String(stdout).trim().split("\n");
  };
  assert.deepEqual(complete("fin"), ["finetune"]);
  assert.deepEqual(complete("finetune", "--schedule", "co"), ["constant", "cosine"]);
  assert.deepEqual(complete("finetune", "--recipe", "demo-n"), ["demo-notes/"]);
});

test("help begins with what is needed, under headings, and says defaults and values", async () => {
  const { stdout } = await ssa(["finetune", "--help"]);
  const words = stdout.replace(/\s+/g, " ");
  assert.match(
    words,
    /Model and data: --base <model> [^<]*\(needed\) --data <data> [^<]*\(needed\)/,
  );
  assert.match(words, /Machine: --device <device> .* Options: --recipe <file> /);
  assert.match(words, /--tune <groups> [^<]*\(default: temperatures\)/);
  assert.match(words, /--recompute \[when\] [^<]*: auto, true, false \(default: auto\)/);
  const compare = (await ssa(["compare", "--help"])).stdout.replace(/\s+/g, " ");
  assert.match(compare, /--out <folder> [^:]*\(default: checkpoints\/<name of the recipe>\)/);
});

test("recipes are listed, shown and copied, and no file is overwritten; runs need a word to go", async (t) => {
  const cwd = await temporaryFolder(t);
  const listed = await ssa(["recipes"], { cwd });
  assert.match(listed.stdout, /^demo +The first minute: a small embedded GPT-2/m);
  const copied = await ssa(["recipes", "copy", "demo", "mine.yaml", "--json"], { cwd });
  assert.deepEqual(onlyJson(copied.stdout), { output: "mine.yaml" });
  const text = await readFile(join(packageRoot(), "recipes/demo.yaml"), "utf8");
  assert.equal(await readFile(join(cwd, "mine.yaml"), "utf8"), text);
  assertRefused(
    await ssa(["recipes", "copy", "demo", "mine.yaml"], { cwd }),
    /mine.yaml exists and stays as it is/,
  );
  const run = join(cwd, "checkpoints/a-1");
  await mkdir(run, { recursive: true });
  await writeFile(join(run, "recipe.yaml"), "base: tiny-gpt2\ndata: moby-dick\n");
  const refused = await ssa(["runs", "delete", "a-1"], { cwd });
  assertRefused(refused, /delete .*a-1 \(1 run, \d+ B\)\?\n.*give --yes/);
  const { stdout, code } = await ssa(["runs", "delete", "a-1", "--yes"], { cwd });
  assert.match(stdout, /^deleted: 1 run/);
  assert.equal(code, 0);
});
