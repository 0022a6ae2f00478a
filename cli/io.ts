// What a command may touch of the process, and what of it all commands use alike. Only cli/ does.

import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { styleText } from "node:util";
import { UserError } from "../src/core/errors.ts";
import { packageRoot } from "../src/files/package-root.ts";
import { hubSettings } from "../src/hub/environment.ts";
import type { Ranks } from "../src/engines/ranks/lead.ts";
import type { JsonObject } from "../src/core/json.ts";
import type { Places } from "../src/model/places.ts";
import { findRecipe } from "../src/options/load.ts";
import { filtered, laidOut, progress, type Section } from "./console.ts";
import * as format from "../src/core/format.ts";

export type CommandIo = ReturnType<typeof processIo> & {
  /** Other processes that compute with this one. */
  ranks?: Ranks;
};

/** Ctrl+C, kill, a closed terminal, and Slurm's notice before the time is up (which Node would take for a debugger's). */
export const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"] as const;

export function processIo() {
  const { env, stderr } = process;
  // What a CI job shows is read later, line by line, even where it gives its programs a terminal.
  const isTty = stderr.isTTY && !env["CI"] && env["TERM"] !== "dumb";
  const now = () => performance.now();
  return {
    env: env as Readonly<Record<string, string | undefined>>,
    homeDir: homedir(),
    /** Where recipes/ and checkpoints/tiny-gpt2/ are. */
    packageRoot: packageRoot(),
    /** Prompts, where they are not given otherwise. */
    stdin: process.stdin as NodeJS.ReadableStream & { readonly isTTY?: boolean },
    /** Results: one JSON document with `--json`, a table otherwise. */
    stdout: filtered(process.stdout),
    /** Logs and progress. */
    stderr: filtered(stderr),
    isTty,
    columns: process.stdout.isTTY ? Math.max(60, process.stdout.columns) : Infinity,
    /** Milliseconds. */
    now,
    /** How far the work is, on stderr; a command that logs JSON lines replaces it. */
    progress: progress(stderr, { isTty, now }),
    /** At the end; a command that found a regression sets 1. */
    exitCode: 0,
  };
}

/** The one JSON document of a command, or what people read. */
export function print(io: CommandIo, json: boolean, document: unknown, text: () => Section[]) {
  io.progress.done();
  io.stdout.write(`${json ? JSON.stringify(document, null, 2) : laidOut(text(), io.columns)}\n`);
}

/** Where what can be made again is kept between runs: tokens of texts, exports for generation. */
export function cacheFolder({ env, homeDir }: CommandIo, kind = ""): string {
  const home = env["XDG_CACHE_HOME"] || join(homeDir, ".cache");
  return join(env["SSA_CACHE"] || join(home, "ssa"), kind);
}

/** How what is named is found, with the progress of its download; `say` gets a line for each note and device. */
export function places(io: CommandIo, refresh = false, say?: (line: string) => void): Places {
  const { progress } = io;
  const line = say ?? ((text: string) => progress.line(text));
  return {
    hub: { ...hubSettings(io.env, io.homeDir), refresh },
    cacheDir: cacheFolder(io),
    visibleCards: io.env["CUDA_VISIBLE_DEVICES"],
    ranks: io.ranks,
    onNote: say ?? ((note) => line(`${styleText("yellow", "note:")} ${note}`)),
    onProgress: (at) => {
      if (!at) return progress.done();
      if ("tokens" in at)
        return progress.update(["tokenizing", format.counted(at.tokens, "token")]);
      const [received, total] = [at.receivedBytes, at.totalBytes];
      const amount = [received, total].map(format.bytes).join(" of ");
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

/** What a recipe is resolved from, with its flags as they were typed. */
export async function recipeSources(io: CommandIo, given: RecipeFlags, flags: JsonObject) {
  const { recipe, set: sets = [] } = given;
  const file = recipe === undefined ? undefined : await findRecipe(recipe, io.packageRoot);
  return { file, env: io.env, sets, flags };
}
type RecipeFlags = { readonly recipe?: string | undefined; readonly set?: string[] | undefined };

export function versionIn(folder: string): string {
  const text = readFileSync(join(folder, "package.json"), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version;
}

/** Refuses to do a share of the work and to put all shares together at once. */
export function checkDealt({ shard, collect }: { shard?: unknown; collect: boolean }): void {
  if (shard && collect)
    throw new UserError("--collect is of all shards, --shard does one: expected one of them");
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
