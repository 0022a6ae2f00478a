// The site, made in pages/ from what there is: docs/ and the other pages of the repository as they are, every command's
// own --help, the recipe's reference, and the library's types. `--pages` ends before the pages become HTML.

import { execFile } from "node:child_process";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, posix } from "node:path";
import { promisify } from "node:util";

const site = import.meta.dirname;
const root = dirname(site);
const pages = join(site, "pages");
const execute = promisify(execFile);

/** Where a file of the repository is on the site; docs/NAME.md is NAME. */
const elsewhere: Readonly<Record<string, string>> = {
  "README.md": "index",
  "CHANGELOG.md": "changelog",
  "CONTRIBUTING.md": "contributing",
  "SECURITY.md": "security",
  "checkpoints/README.md": "run-folder",
  "recipes/reference.yaml": "reference/recipe",
};

interface Manifest {
  readonly repository?: { readonly url: string };
}
const { repository } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as Manifest;
const home = repository?.url.replace(/^git\+|\.git$/g, "");

/** Links between files of the repository as links of the site; to what it does not have, as links to the repository. */
function linked(text: string, from: string): string {
  return text.replace(/\[((?:[^[\]]|\[[^\]]*\])+)\]\(([^)\s]+)\)/g, (link, words, target) => {
    const [path = "", anchor] = String(target).split("#");
    if (path === "" || /^\w+:/.test(path)) return link;
    const file = posix.normalize(posix.join(posix.dirname(from), path));
    const page = elsewhere[file] ?? /^docs\/([\w-]+)\.md$/.exec(file)?.[1];
    if (page !== undefined)
      return `[${words}](/${page.replace(/^index$/, "")}${anchor ? `#${anchor}` : ""})`;
    return home ? `[${words}](${home}/blob/main/${file})` : words;
  });
}

/** Not inside of code blocks, where nothing is a link. */
const outsideCode = (text: string, change: (part: string) => string) =>
  text.split(/(^```[^]*?^```$)/m).map((part, i) => (i % 2 === 0 ? change(part) : part));

async function write(page: string, text: string): Promise<void> {
  const path = join(pages, `${page}.md`);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}

async function copyPages(): Promise<void> {
  await cp(join(root, "docs", "pictures"), join(pages, "pictures"), { recursive: true });
  const docs = (await readdir(join(root, "docs"))).filter((name) => name.endsWith(".md"));
  const files = [...docs.map((name) => `docs/${name}`), ...Object.keys(elsewhere)];
  for (const file of files.filter((name) => name.endsWith(".md"))) {
    const text = await readFile(join(root, file), "utf8");
    const page = elsewhere[file] ?? /([\w-]+)\.md$/.exec(file)![1]!;
    const changed = outsideCode(text, (part) => linked(part, file)).join("");
    await write(page, changed.replaceAll('"docs/pictures/', '"./pictures/'));
  }
  const reference = await readFile(join(root, "recipes", "reference.yaml"), "utf8");
  await write("reference/recipe", `# Every key of a recipe\n\n\`\`\`yaml\n${reference}\`\`\`\n`);
}

/** Of a help text: lists (flags, arguments, commands) as tables, since their lines are long, the rest as it is. */
function helpPage(title: string, help: string): string {
  const parts = help
    .trimEnd()
    .split("\n\n")
    .map((block) => {
      const [, name, list] = /^(Options|Arguments|Commands):\n([^]*)$/.exec(block) ?? [];
      if (!list) return `\`\`\`text\n${block}\n\`\`\``;
      // A word of the list, then what is said of it, which goes on in lines that are set far in.
      const entries = list.replace(/\n {5,}/g, " ").matchAll(/^ {2}(\S.*?)(?: {2,}(.*))?$/gm);
      const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
      const rows = [...entries].map(
        ([, word = "", said = ""]) =>
          `| <code v-pre>${cell(word)}</code> | <span v-pre>${cell(said)}</span> |`,
      );
      return `## ${name}\n\n| given | meaning |\n|---|---|\n${rows.join("\n")}`;
    });
  return `# ${title}\n\n${parts.join("\n\n")}\n`.replaceAll("\n```\n\n```text\n", "\n\n");
}

/** A page for each command that the program names. */
async function writeCommands(): Promise<void> {
  const helpOf = async (...words: string[]) => {
    const args = ["--import", "tsx", join(root, "cli", "main.ts"), ...words, "--help"];
    return (await execute(process.execPath, args, { cwd: root })).stdout;
  };
  const all = await helpOf();
  const names = [...all.split("\nCommands:\n")[1]!.matchAll(/^ {2}([a-z]\w*)/gm)]
    .map(([, name]) => name!)
    .filter((name) => name !== "help");
  await write("reference/index", helpPage("ssa", all));
  for (const name of names)
    await write(`reference/${name}`, helpPage(`ssa ${name}`, await helpOf(name)));
}

/** A program of the site's own packages. */
async function run(name: string, ...args: string[]): Promise<void> {
  const program = join(site, "node_modules", ".bin", name);
  const done = execute(program, args, { cwd: site });
  const { stdout, stderr } = await done.catch((error: { stdout: string; stderr: string }) => {
    process.stderr.write(`${error.stdout}${error.stderr}`);
    throw new Error(`${name} failed`);
  });
  process.stdout.write(stdout + stderr);
}

await rm(pages, { recursive: true, force: true });
await Promise.all([copyPages(), writeCommands(), run("typedoc")]);
if (!process.argv.includes("--pages")) await run("vitepress", "build");
