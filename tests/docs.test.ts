// What the pages say is there: links and anchors, files, messages, variables, commands, the package's version.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { test } from "node:test";
import { ssa } from "./cli/program.ts";
import { temporaryFolder } from "./helpers.ts";
import { sourceFiles } from "./source-files.ts";

const root = dirname(import.meta.dirname);
const textOf = (path: string) => readFileSync(join(root, path), "utf8");
const docs = readdirSync(join(root, "docs"))
  .filter((name) => name.endsWith(".md"))
  .map((name) => `docs/${name}`);
const pages = [
  "README.md",
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  "checkpoints/README.md",
]
  .concat(docs)
  .map((path) => ({ path, text: textOf(path) }));
const source = sourceFiles("src", "cli");

/** Links and anchors are not in code. */
const withoutCode = (text: string) => text.replace(/^```[^]*?^```$|`[^`\n]*`/gm, "");

/** As GitHub and VitePress make them of headings. */
function anchorsOf(text: string): readonly string[] {
  const headings = [...text.replace(/^```[^]*?^```$/gm, "").matchAll(/^#+ (.*)$/gm)];
  return headings.map(([, words]) =>
    words!
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, "")
      .trim()
      .replace(/\s/g, "-"),
  );
}

test("every link between the pages leads somewhere, to its heading too", () => {
  const dead = pages.flatMap(({ path, text }) => {
    const plain = withoutCode(text);
    const links = [
      ...plain.matchAll(/\]\(([^)\s]+)\)/g),
      ...plain.matchAll(/ src(?:set)?="([^"]+)"/g),
    ];
    return links.flatMap(([, link]) => {
      const [target = "", anchor] = link!.split("#");
      if (/^\w+:/.test(target)) return [];
      const file = target ? posix.normalize(posix.join(posix.dirname(path), target)) : path;
      if (!existsSync(join(root, file))) return [`${path}: ${link}`];
      return anchor === undefined || anchorsOf(textOf(file)).includes(anchor)
        ? []
        : [`${path}: ${link}: no such heading`];
    });
  });
  assert.deepEqual(dead, []);
});

test("files of the repository that pages and sources name are there", () => {
  const rooms = "src|cli|tests|docs|recipes|scripts|bench";
  const named = new RegExp(`\\b(?:${rooms})/[\\w./-]+\\.(?:ts|md|sh|yaml|py)\\b`, "g");
  const lost = [...pages, ...source].flatMap(({ path, text }) =>
    // What an address or a longer path names is somebody else's.
    [...text.matchAll(named)]
      .filter(
        ({ 0: file, index }) =>
          !/[\w./-]/.test(text[index - 1] ?? "") && !existsSync(join(root, file)),
      )
      .map(([file]) => `${path}: ${file}`),
  );
  assert.deepEqual(lost, []);
});

test("each message of docs/troubleshooting.md is still in the source", () => {
  const messages = [...textOf("docs/troubleshooting.md").matchAll(/^### `(.+)`$/gm)].map(
    (m) => m[1]!,
  );
  assert.ok(messages.length >= 20, `${messages.length} messages`);
  const everything = source.map(({ text }) => text).join("\n");
  const isThere = (message: string) =>
    message
      .split("…")
      .map((part) => part.replace(/^[\s"(:,;]+|[\s"(:,;]+$/g, ""))
      .every((part) => everything.includes(part));
  assert.deepEqual(
    messages.filter((message) => !isThere(message)),
    [],
  );
});

test("docs/environment.md has the variables that the program reads, and no others", () => {
  const page = textOf("docs/environment.md");
  const prefixes = "SSA|HF|HUGGING_?FACE|TRANSFORMERS|XDG|ORT|NVIDIA|CUDA|LD";
  const patterns = [
    new RegExp(`["{ ]((?:${prefixes})_[A-Z_0-9]*[A-Z0-9])["} ,:]`, "g"),
    /env\["(\w+)"\]/g,
  ];
  // npm's own, by which a command knows how it was called; what is set for a program that is asked.
  const internal = ["npm_command"];
  const read = source.flatMap(({ text }) =>
    patterns.flatMap((pattern) => [...text.matchAll(pattern)].map(([, name]) => name!)),
  );
  const listed = [...page.matchAll(/`([A-Z][A-Z_0-9]+)`/g)].map(([, name]) => name!);
  const unlisted = new Set(
    read.filter((name) => !internal.includes(name) && !listed.includes(name)),
  );
  assert.deepEqual([...unlisted], []);
  const everything = source.map(({ text }) => text).join("\n");
  assert.deepEqual(
    listed.filter((name) => !everything.includes(name)),
    [],
  );
});

test("docs/commands.md has a section for each command", async () => {
  const { stdout } = await ssa(["--help"]);
  const names = [...stdout.split("\nCommands:\n")[1]!.matchAll(/^ {2}([a-z]\w*)/gm)].map(
    (m) => m[1]!,
  );
  const sections = [...textOf("docs/commands.md").matchAll(/^## ssa (\w+)$/gm)].map((m) => m[1]!);
  assert.deepEqual(sections.toSorted(), names.filter((name) => name !== "help").toSorted());
});

test("the version is package.json's wherever a page names it", () => {
  const { version } = JSON.parse(textOf("package.json")) as { version: string };
  const named = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/\bssa-(\d+\.\d+\.\d+)/g)].map((m) => `${path}: ${m[1]}`),
  );
  assert.deepEqual(
    named.filter((where) => !where.endsWith(`: ${version}`)),
    [],
  );
  assert.deepEqual(
    source.filter(({ text }) => text.includes(`"${version}"`)).map(({ path }) => path),
    [],
  );
});

test("a release has the tag of its version, its repository and its section of the changelog", async (t) => {
  const cwd = await temporaryFolder(t);
  const notes = (tag: string) =>
    spawnSync(
      process.execPath,
      [
        "--import",
        import.meta.resolve("tsx"),
        join(root, "scripts/release-notes.ts"),
        tag,
        "us/ssa",
      ],
      { cwd, encoding: "utf8" },
    );
  const write = (url: string, changelog: string) => {
    const manifest = { version: "1.2.3", repository: { url } };
    writeFileSync(join(cwd, "package.json"), JSON.stringify(manifest));
    writeFileSync(join(cwd, "CHANGELOG.md"), changelog);
  };
  write("git+https://github.com/us/ssa.git", "# Changelog\n\n## Unreleased\n\n- later\n");
  assert.match(notes("v1.2.4").stderr, /^error: the tag is "v1\.2\.4", .* expected v1\.2\.3$/m);
  assert.match(notes("v1.2.3").stderr, /^error: CHANGELOG\.md has no section/);
  const changelog =
    "## Unreleased\n\n- later\n\n## 1.2.3 - 2026-12-01\n\n- this\n\n## 1.2.2\n\n- old\n";
  write("git+https://github.com/them/ssa.git", changelog);
  assert.match(notes("v1.2.3").stderr, /^error: package\.json's repository is .*them/);
  write("git+https://github.com/us/ssa.git", changelog);
  assert.deepEqual([notes("v1.2.3").stdout, notes("v1.2.3").status], ["- this\n", 0]);
});
