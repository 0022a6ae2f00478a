// What a command may touch of the process: its streams, environment and signals. Only cli/ does.

import { join } from "node:path";
import type { Output } from "./console.ts";
import { progress, type Progress, style, type Style } from "./console.ts";

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
  /** The exit code at the end; a command that found a regression sets 1. */
  exitCode: number;
}

/** Where what can be made again is kept between runs: tokens of texts, exports for generation. */
export function cacheFolder({ env, homeDir }: CommandIo, kind: "tokens" | "exports"): string {
  const home = env["XDG_CACHE_HOME"] || join(homeDir, ".cache");
  return join(env["SSA_CACHE"] || join(home, "ssa"), kind);
}

/** A fresh progress line on stderr. */
export function openProgress({ stderr, isTty, now }: CommandIo): Progress {
  return progress(stderr, { isTty, now });
}

/** The real process. */
export function processIo(packageRoot: string, homeDir: string): CommandIo {
  const { env, stdout, stderr } = process;
  const isTty = stderr.isTTY;
  return {
    env,
    homeDir,
    packageRoot,
    stdout,
    stderr,
    isTty,
    columns: stdout.isTTY ? Math.max(60, stdout.columns) : 80,
    style: style(stdout.isTTY, env),
    now: () => performance.now(),
    exitCode: 0,
  };
}
