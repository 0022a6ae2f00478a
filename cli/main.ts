#!/usr/bin/env node
// The program: maps a word to a command, and failures to exit codes. 0 fine, 1 the work failed or a regression was
// found, 2 wrong usage or configuration, 130 interrupted after saving.

import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, CommanderError } from "commander";
import { nearest, UserError } from "../src/core/errors.ts";
import { convertCommand } from "./commands/convert.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { evalCommand } from "./commands/eval.ts";
import { finetuneCommand } from "./commands/finetune.ts";
import { generateCommand } from "./commands/generate.ts";
import { inspectCommand } from "./commands/inspect.ts";
import { type CommandIo, processIo } from "./io.ts";

const commands = [
  finetuneCommand,
  evalCommand,
  convertCommand,
  generateCommand,
  inspectCommand,
  doctorCommand,
];

// Nothing that this program loads reports to anyone: ONNX Runtime would, and keeps a device id, unless it is told.
process.env["ORT_DISABLE_TELEMETRY"] ??= "1";

const packageRoot = findPackageRoot(dirname(fileURLToPath(import.meta.url)));
const io = processIo(packageRoot, homedir());

// A reader that has seen enough (`ssa inspect MODEL | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

try {
  await buildProgram(io).parseAsync();
  process.exitCode = io.exitCode;
} catch (error) {
  process.exitCode = report(error, io);
}

function buildProgram(io: CommandIo): Command {
  const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as {
    version: string;
  };
  const program = new Command("ssa")
    .description("Fine-tune pretrained language models with Selective Self-Attention temperatures")
    .version(version)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      outputError: (text, write) => write(text + mistypedFlag(text)),
    })
    .showSuggestionAfterError()
    .helpCommand(true);
  for (const register of commands) register(program, io);
  for (const command of program.commands) command.exitOverride();
  return program;
}

/** Commander misses a required flag before it sees that it was mistyped: the word that it may be. */
function mistypedFlag(error: string): string {
  const missing = /required option '(--[\w-]+)/.exec(error)?.[1];
  const given = process.argv.filter((word) => word.startsWith("--"));
  const word = missing && nearest(missing, given);
  return word ? `(Is ${word} it?)\n` : "";
}

/** One clear sentence for a user's mistake, a stack only for ours; the exit code. */
function report(error: unknown, { stderr, style }: CommandIo): number {
  // Commander has printed its own message, with a suggestion.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof UserError) {
    stderr.write(`${style.red("error:")} ${error.message}\n`);
    if (error.hint) stderr.write(`${style.dim("hint:")} ${error.hint}\n`);
    return error.exitCode;
  }
  // The system refused a file: its message names it, and a stack would tell no more.
  if (error instanceof Error && "syscall" in error) {
    stderr.write(`${style.red("error:")} ${error.message}\n`);
    return 1;
  }
  stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return 1;
}

/** The built program lies one folder deeper than the source. */
function findPackageRoot(folder: string): string {
  if (existsSync(join(folder, "package.json"))) return folder;
  return findPackageRoot(dirname(folder));
}
