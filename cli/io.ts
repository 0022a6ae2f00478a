// What a command may touch of the process, and what of it all commands use alike. Only cli/ does.

import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { hubSettings } from "../src/hub/environment.ts";
import type { Places } from "../src/model/places.ts";
import * as console from "./console.ts";

export interface CommandIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly homeDir: string;
  /** Root of this package, where recipes/ and checkpoints/tiny-gpt2/ are. */
  readonly packageRoot: string;
  /** Results: one JSON document with `--json`, a table otherwise. */
  readonly stdout: console.Output;
  /** Logs and progress. */
  readonly stderr: console.Output;
  readonly isTty: boolean;
  readonly columns: number;
  readonly style: console.Style;
  /** Milliseconds. */
  readonly now: () => number;
  /** How far the work is, on stderr; a command that logs JSON lines replaces it. */
  progress: console.Progress;
  /** The exit code at the end; a command that found a regression sets 1. */
  exitCode: number;
}

/** The real process. */
export function processIo(packageRoot: string, homeDir: string): CommandIo {
  const { env } = process;
  // What a CI job shows is read later, line by line, even where it gives its programs a terminal.
  const isTty = process.stderr.isTTY && !env["CI"] && env["TERM"] !== "dumb";
  const now = () => performance.now();
  const isColored = console.hasColor(process.stdout.isTTY, env);
  const stderr = console.filtered(process.stderr, isColored);
  return {
    env,
    homeDir,
    packageRoot,
    stdout: console.filtered(process.stdout, isColored),
    stderr,
    isTty,
    columns: process.stdout.isTTY ? Math.max(60, process.stdout.columns) : 80,
    style: console.style(isColored),
    now,
    progress: console.progress(stderr, { isTty, now }),
    exitCode: 0,
  };
}

/** The one JSON document of a command, or its table. */
export function print(io: CommandIo, json: boolean, document: unknown, text: () => string): void {
  io.progress.done();
  io.stdout.write(`${json ? JSON.stringify(document, null, 2) : text()}\n`);
}

/** Where what can be made again is kept between runs: tokens of texts, exports for generation. */
export function cacheFolder({ env, homeDir }: CommandIo, kind = ""): string {
  const home = env["XDG_CACHE_HOME"] || join(homeDir, ".cache");
  return join(env["SSA_CACHE"] || join(home, "ssa"), kind);
}

/** How what is named is found, with the progress of its download; `say` gets a line for each note and device. */
export function places(io: CommandIo, say?: (line: string) => void): Places {
  const { progress, style } = io;
  const line = say ?? ((text: string) => progress.line(text));
  return {
    hub: hubSettings(io.env, io.homeDir),
    cacheDir: cacheFolder(io),
    onNote: say ?? ((note) => line(`${style.yellow("note:")} ${note}`)),
    onProgress: (at) => {
      if (!at) return progress.done();
      if ("tokens" in at)
        return progress.update(["tokenizing", `${console.formatInteger(at.tokens)} tokens`]);
      const [received, total] = [at.receivedBytes, at.totalBytes];
      const amount = [received, total].map(console.formatBytes).join(" of ");
      progress.update([basename(at.file), amount], total > 0 ? received / total : undefined);
    },
    // Of a device that was not taken only where the choice was the program's, and where somebody may miss it.
    onChoice: (reports) => {
      for (const { device, isChosen, isAvailable, reason, hint } of reports)
        if (isChosen) line(`device    ${device}`);
        else if (isAvailable !== null && isPlausible(device))
          line(`  not ${device}: ${reason}${hint ? `; ${hint}` : ""}`);
    },
  };
}

/** Shows what begins, unless the work is to stop. */
export const staging =
  ({ progress }: CommandIo, signal: AbortSignal) =>
  (stage: string): void => {
    signal.throwIfAborted();
    progress.update([stage]);
  };

/** Whether a machine like this one may have the device at all. */
export function isPlausible(device: string): boolean {
  const [isLinux, isWindows] = ["linux", "win32"].map((name) => name === process.platform);
  // NVIDIA's driver, natively and under WSL; any GPU's.
  const hasNvidia = isLinux && ["/proc/driver/nvidia/version", "/dev/dxg"].some(existsSync);
  const plausible: Readonly<Record<string, boolean | undefined>> = {
    cuda: hasNvidia,
    "tfjs:gpu": hasNvidia || isWindows,
    webgpu: !isLinux || hasNvidia || existsSync("/dev/dri"),
    dml: isWindows,
    coreml: process.platform === "darwin",
  };
  return plausible[device] ?? true;
}
