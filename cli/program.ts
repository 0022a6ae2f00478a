// The program: maps a word to a command, and failures to exit codes. 0 fine, 1 the work failed or a regression was
// found, 2 wrong usage or configuration, 130 interrupted after saving.

import { basename } from "node:path";
import { styleText } from "node:util";
import { Command as Commander, CommanderError } from "commander";
import { codeOf, nearest, UserError } from "../src/core/errors.ts";
import type { Command } from "./command.ts";
import { type CommandIo, processIo, versionIn } from "./io.ts";

/** What each is for, and where it is: only the one that was given is loaded, so that help comes at once. */
const commands: Readonly<Record<string, readonly [about: string, load: Load]>> = {
  finetune: ["train temperatures (or more) on text", () => import("./commands/finetune.ts")],
  compare: ["train arms with seeds, and compare", () => import("./commands/compare.ts")],
  report: ["make a run's or comparison's page", () => import("./commands/report.ts")],
  serve: ["fine-tune in a browser, on a page of its own", () => import("./commands/serve.ts")],
  eval: ["measure perplexity; fail when it rose", () => import("./commands/eval.ts")],
  convert: ["export a model, and check what was written", () => import("./commands/convert.ts")],
  push: ["send a model or adapter to the hub", () => import("./commands/push.ts")],
  generate: ["continue a prompt", () => import("./commands/generate.ts")],
  inspect: ["show what a model is made of", () => import("./commands/inspect.ts")],
  runs: ["list runs, delete some", () => import("./commands/runs.ts")],
  recipes: ["list, show and copy recipes", () => import("./commands/recipes.ts")],
  doctor: ["show devices, memory, caches, versions", () => import("./commands/doctor.ts")],
};
type Load = () => Promise<{ readonly command: Command }>;

const words = process.argv.slice(2);

export async function main(): Promise<void> {
  const io = processIo();
  const fail = (error: unknown) => void (process.exitCode = report(error, io));
  process.on("uncaughtException", (error) => process.exit(report(error, io)));
  // A reader that has seen enough (`ssa inspect MODEL | head`) is no failure, nor does a run need its listeners.
  process.stderr.on("error", () => undefined);
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") fail(error);
  });
  try {
    await (await buildProgram(io)).parseAsync();
    process.exitCode ??= io.exitCode;
  } catch (error) {
    fail(error);
  }
}

async function buildProgram(io: CommandIo): Promise<Commander> {
  const program = new Commander("ssa")
    .description("Fine-tune pretrained language models with Selective Self-Attention temperatures")
    .version(versionIn(io.packageRoot))
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      outputError: (text, write) => write(text + adviceOn(text)),
    });
  const isGiven = (name: string) => words.find((word) => Object.hasOwn(commands, word)) === name;
  for (const [name, [about, load]] of Object.entries(commands)) {
    const target = program.command(name).description(about);
    if (isGiven(name)) (await load()).command(target, io);
  }
  const isCompleting = words[0] === "complete";
  if (isCompleting) await (await import("./completion.ts")).addCompletion(program, io.packageRoot);
  else program.command("complete").description("print a shell's script for the Tab key");
  return program;
}

/** Commander misses a required flag before it sees that it was mistyped: the word that it may be. */
function adviceOn(error: string): string {
  if (error.includes("too many arguments") && words.includes("--data"))
    return "hint: quote a pattern, so that the shell leaves it as it is, or name the folder\n";
  const missing = /required option '(--[\w-]+)/.exec(error)?.[1];
  const flags = words.filter((given) => given.startsWith("--"));
  const word = missing && nearest(missing, flags);
  return word ? `(Is ${word} it?)\n` : "";
}

/** What a path is at which the system refuses to read or to begin, by the codes of its errors. */
const refusals: Readonly<Record<string, readonly [problem: string, hint: string]>> = {
  EACCES: ["permission denied", "change its permissions, or name another"],
  EPERM: ["permission denied", "change its permissions, or name another"],
  ELOOP: ["its links lead in a circle", "name what they should lead to"],
  ENAMETOOLONG: ["its name is too long", "choose a shorter one"],
};

/** One clear sentence, and for a mistake of ours where it happened; a stack only where it is asked for. The exit code. */
function report(error: unknown, { stderr }: CommandIo): number {
  // Commander has printed its own message, with a suggestion.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const tell = (message: string, hint?: string) => {
    stderr.write(`${styleText("red", "error:")} ${message}\n`);
    if (hint) stderr.write(`${styleText("dim", "hint:")} ${hint}\n`);
  };
  if (error instanceof UserError) {
    tell(error.message, error.hint);
    return error.exitCode;
  }
  const { name, message, stack = "" } = error instanceof Error ? error : new Error(String(error));
  // The system refused a file: its message names it.
  const [problem, hint] = refusals[codeOf(error) ?? ""] ?? [];
  if (error instanceof Error && problem && "path" in error) {
    tell(`${String(error.path)}: ${problem}`, hint);
    return 2;
  }
  if (error instanceof Error && "syscall" in error) tell(message);
  else {
    const [, file = "?", line = "?"] = /([^\s(]+):(\d+):\d+\)?$/m.exec(stack) ?? [];
    tell(
      `${message.split("\n")[0]} [${name} at ${basename(file)}:${line}]`,
      "a mistake of ssa: please open an issue in its repository with this line, and what --debug adds to it",
    );
  }
  if (words.includes("--debug")) stderr.write(`${stack}\n`);
  return 1;
}
