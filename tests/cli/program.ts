// Runs the real program in a process of its own, as a user's shell does.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));

/** What node is given to be `ssa`: as `npm test` has just built it, which starts sooner, or else from its source. */
export const program: readonly string[] =
  process.env["npm_lifecycle_event"] === "test"
    ? [path("dist/cli/main.js")]
    : ["--import", import.meta.resolve("tsx"), path("cli/main.ts")];

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly nodeArgs?: readonly string[];
  /** A shell's, which starts the program by `exec "$@"`. */
  readonly script?: string;
  /** Called with all of stderr so far, whenever more has come. */
  readonly onStderr?: (text: string, child: ChildProcess) => void;
  readonly onStdout?: (text: string, child: ChildProcess) => void;
}

/** Starts `ssa <args>`, without network and with nothing of this process's settings; resolves when it has ended. */
export function ssa(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const kept = Object.entries(process.env).filter(([name]) =>
    /^(HOME|PATH|TMP.*|TEMP|SYSTEMROOT)$/i.test(name),
  );
  const nodeArgs = [...(options.nodeArgs ?? []), ...program, ...args];
  const { script } = options;
  const [command, words] = script
    ? ["sh", ["-c", script, "sh", process.execPath, ...nodeArgs]]
    : [process.execPath, nodeArgs];
  const child = spawn(command, words, {
    cwd: options.cwd,
    env: { ...Object.fromEntries(kept), HF_HUB_OFFLINE: "1", ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk) => {
    stdout += String(chunk);
    options.onStdout?.(stdout, child);
  });
  child.stderr.on("data", (chunk) => {
    stderr += String(chunk);
    options.onStderr?.(stderr, child);
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

/** One JSON document and nothing else. */
export function onlyJson(text: string): Record<string, unknown> {
  return JSON.parse(text) as Record<string, unknown>;
}

/** The records of JSON lines; fails where a line is something else. */
export function jsonLines(text: string): Record<string, unknown>[] {
  return text.trimEnd().split("\n").map(onlyJson);
}

/** A mistake of the user: this exit code, one message that matches, nothing on stdout and never a stack. */
export function assertRefused(ended: Ended, message: RegExp, code = 2): void {
  assert.match(ended.stderr, message);
  assert.equal(ended.code, code, ended.stderr);
  assert.equal(ended.stdout, "");
  assert.doesNotMatch(ended.stderr, /^\s+at .*:\d+/m);
}
