// What a command may touch of the process: its streams, environment and signals. Only cli/ does.

import { join } from "node:path";
import {
  filtered,
  hasColor,
  type Output,
  progress,
  type Progress,
  style,
  type Style,
} from "./console.ts";

export interface CommandIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly homeDir: string;
  /** Root of this package, where recipes/ and checkpoints/tiny-gpt2/ are. */
  readonly packageRoot: string;
  /** Results: one JSON document with `--json`, a table otherwise. */
  readonly stdout: Output;
  /** Logs and progress. */
  readonly stderr: Output;
  readonly isTty: boolean;
  readonly columns: number;
  readonly style: Style;
  /** Milliseconds. */
  readonly now: () => number;
  /** How far the work is, on stderr; a command that logs JSON lines replaces it. */
  progress: Progress;
  /** The exit code at the end; a command that found a regression sets 1. */
  exitCode: number;
}

/** Where what can be made again is kept between runs: tokens of texts, exports for generation. */
export function cacheFolder({ env, homeDir }: CommandIo, kind = ""): string {
  const home = env["XDG_CACHE_HOME"] || join(homeDir, ".cache");
  return join(env["SSA_CACHE"] || join(home, "ssa"), kind);
}

/** The one JSON document of a command, or its table. */
export function print(io: CommandIo, json: boolean, document: unknown, text: () => string): void {
  io.stdout.write(`${json ? JSON.stringify(document, null, 2) : text()}\n`);
}

/** The real process. */
export function processIo(packageRoot: string, homeDir: string): CommandIo {
  const { env } = process;
  const isTty = process.stderr.isTTY;
  const now = () => performance.now();
  const isColored = hasColor(process.stdout.isTTY, env);
  const [stdout, stderr] = [process.stdout, process.stderr].map((s) => filtered(s, isColored));
  return {
    env,
    homeDir,
    packageRoot,
    stdout: stdout!,
    stderr: stderr!,
    isTty,
    columns: process.stdout.isTTY ? Math.max(60, process.stdout.columns) : 80,
    style: style(process.stdout.isTTY, env),
    now,
    progress: progress(stderr!, { isTty, now }),
    exitCode: 0,
  };
}
