// `ssa finetune`: from a base and data to a trained, saved and reported model.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { availableParallelism, freemem } from "node:os";
import { basename, join, resolve } from "node:path";
import { type Command, Option } from "commander";
import { UserError } from "../../src/core/errors.ts";
import { selectSplit } from "../../src/data/readers/data-files.ts";
import { newestRun, nextRunName, runFiles } from "../../src/files/run-folder.ts";
import { findRecipe } from "../../src/options/find.ts";
import { contradictions, loadRecipe, type RecipeSources } from "../../src/options/load.ts";
import { type Recipe, recipeOptions } from "../../src/options/schema.ts";
import { finetune } from "../../src/run/finetune.ts";
import { finishedReport, refuseUsed } from "../../src/run/folder.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import { fitRun } from "../../src/run/fit.ts";
import { planRun } from "../../src/run/plan.ts";
import { type Prepared, prepareRun, type RunData } from "../../src/run/prepare.ts";
import { formatInteger, type Progress } from "../console.ts";
import { findData, tokenizing } from "../data.ts";
import { startEngine } from "../engine.ts";
import { cacheFolder, type CommandIo } from "../io.ts";
import { type LogFormat, openLog, type RunLog } from "../log.ts";
import { findModel, hubOptions } from "../models.ts";
import { planText } from "../plan.ts";
import { reportText } from "../report.ts";

interface FinetuneFlags extends Readonly<Record<string, unknown>> {
  readonly recipe?: string;
  readonly set?: readonly string[];
  readonly out?: string;
  readonly resume?: boolean;
  readonly logFormat: LogFormat;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

const CHECKPOINTS = "checkpoints";

export function finetuneCommand(program: Command, io: CommandIo): void {
  const command = program
    .command("finetune")
    .description("train temperatures (or more) on text and report the change of perplexity")
    .option("--recipe <file>", "recipe file, or the name of a shipped one")
    .option("--set <path=value>", "set a nested key, e.g. temperatures.key.token=true", collect);
  for (const { flag, description, initial } of recipeOptions)
    if (flag) command.option(flag, described(description, initial));
  command
    .option("--resume", "continue the run at --out, or the newest under checkpoints/")
    .addOption(
      new Option("--log-format <format>", "auto: human-readable on a terminal, else JSON lines")
        .choices(["auto", "human", "json"])
        .default("auto"),
    )
    .option("--dry-run", "resolve everything, print the plan, train nothing")
    .option("--json", "print the report (or the plan) as one JSON document")
    .addHelpText(
      "after",
      `
Example:
  $ ssa finetune --base tiny-gpt2 --data moby-dick --steps 100`,
    )
    .action((flags: FinetuneFlags) => runFinetune(flags, io));
}

async function runFinetune(flags: FinetuneFlags, io: CommandIo): Promise<void> {
  const { recipe, runDir } = await resolveRun(flags, io);
  const printReport = (report: RunReport) =>
    io.stdout.write(
      `${flags.json ? JSON.stringify(report, null, 2) : reportText(report, runDir, io)}\n`,
    );
  const log = openLog(io, flags.logFormat);
  const done = flags.resume ? await finishedReport(runDir) : undefined;
  if (done) {
    log.note(`${runDir} is finished: its report again`);
    printReport(done);
    return;
  }
  const settings = hubOptions(io);
  const { progress } = log;
  const baseFolder = await findModel(recipe.base, io, settings, progress);
  const prepared = await prepareRun(recipe, baseFolder, await findRunData(recipe, io, progress), {
    cacheFolder: cacheFolder(io, "tokens"),
    threads: recipe.threads === "auto" ? availableParallelism() : recipe.threads,
    onProgress: tokenizing(progress),
  }).finally(() => progress.done());
  const threads = recipe.threads === "auto" ? 0 : recipe.threads;
  const engine = await startEngine(recipe.device, threads, log.note);
  const stop = stopOnSignal(log);
  try {
    const fit = fitRun(recipe, prepared, {
      programBytes: process.memoryUsage.rss(),
      freeBytes: freemem(),
      mapsWeights: engine.mapsWeights,
    });
    if (flags.dryRun) {
      const plan = await planRun(recipe, prepared, engine, fit);
      io.stdout.write(`${flags.json ? JSON.stringify(plan, null, 2) : planText(plan, io)}\n`);
      return;
    }
    announce(prepared, recipe, engine.description, runDir, log);
    const result = await finetune({
      recipe,
      runDir,
      prepared,
      engine,
      fit,
      // A folder by its full path, so that an adapter finds it from anywhere.
      base: { name: existsSync(recipe.base) ? resolve(recipe.base) : recipe.base },
      isResumed: flags.resume ?? false,
      onEvent: (event) => log.event(event),
      signal: stop.signal,
      now: io.now,
      peakRssBytes: () => process.resourceUsage().maxRSS * 1024,
    });
    log.done();
    if (result.outcome === "finished") return void printReport(result.report);
    const where = result.step === null ? "stopped" : `stopped and saved after step ${result.step}`;
    log.note(`${where}; continue: ssa finetune --resume --out ${runDir}`);
    io.exitCode = 130;
  } finally {
    log.done();
    stop.release();
    await engine.dispose();
  }
}

/** The recipe and the folder of the run: a new one, or one that is resumed as it was. */
async function resolveRun(flags: FinetuneFlags, io: CommandIo) {
  const { resume: isResumed, out: given } = flags;
  const out = given ?? (isResumed ? await newestRun(CHECKPOINTS) : undefined);
  if (isResumed && out === undefined)
    throw new UserError(`there is no run under ${CHECKPOINTS}/ to resume`, {
      hint: "name its folder: --resume --out DIR",
    });
  const path = join(out ?? "", runFiles.recipe);
  if (isResumed && existsSync(path))
    return { recipe: await resumedRecipe(path, flags, io), runDir: out! };
  const recipe = loadRecipe(await recipeSources(flags, io));
  const runDir =
    out ?? recipe.out ?? join(CHECKPOINTS, await nextRunName(CHECKPOINTS, runStem(recipe)));
  if (!isResumed) await refuseUsed(runDir);
  return { recipe: { ...recipe, out: runDir }, runDir };
}

/** The recipe that a run began with; flags that contradict it are refused. */
async function resumedRecipe(path: string, flags: FinetuneFlags, io: CommandIo): Promise<Recipe> {
  const saved = loadRecipe({ file: { path, text: await readFile(path, "utf8") } });
  const given = await recipeSources(flags, { ...io, env: {} });
  const differing = contradictions(loadRecipe({ ...given, saved }), saved);
  if (differing.length === 0) return saved;
  const list = differing.map(
    ({ key, saved, given }) => `${key} is ${JSON.stringify(saved)}, not ${JSON.stringify(given)}`,
  );
  throw new UserError(`the run has another recipe, ${path}: ${list.join("; ")}`, {
    hint: "resume without these options, or start a new run",
  });
}

async function recipeSources(flags: FinetuneFlags, io: CommandIo): Promise<RecipeSources> {
  const path = flags.recipe && (await findRecipe(flags.recipe, io.packageRoot));
  const given = recipeOptions.map(({ key }) => [key, flags[key]] as const);
  const device = io.env["SSA_DEVICE"];
  return {
    ...(path && { file: { path, text: await readFile(path, "utf8") } }),
    // Over the file, under what the command line says.
    sets: [...(device ? [`device=${device}`] : []), ...(flags.set ?? [])],
    flags: Object.fromEntries(given),
  };
}

/** `gpt2-wikitext` of base and data. */
function runStem({ base, data }: Recipe): string {
  const word = (name: string) =>
    basename(name.replace(/[@:].*$/, "").replace(/\/+$/, "")).replace(/\.\w+$/, "") || "run";
  return `${word(base)}-${word(data)}`;
}

async function findRunData(recipe: Recipe, io: CommandIo, progress: Progress): Promise<RunData> {
  const settings = hubOptions(io);
  const find = (name: string, splits?: readonly string[]) =>
    findData(name, io, settings, { progress, ...(splits && { splits }) });
  const data = await find(recipe.data, ["train", "validation"]);
  const held = recipe.evalData ? await find(recipe.evalData) : undefined;
  const holdOut = held ? 0 : recipe.holdOut;
  const evaluation = held
    ? selectSplit(held, held.split ?? "evaluation")
    : selectSplit(data, "validation", holdOut);
  return {
    train: selectSplit(data, data.split ?? "train", holdOut),
    evaluation,
    evaluationSeparator: (held ?? data).separator,
  };
}

/** What is about to happen, in a few lines. */
function announce(
  { opened, parameters, context, reportPlan, stream }: Prepared,
  { tune, steps, batchSize, gradientAccumulationSteps }: Recipe,
  device: string,
  runDir: string,
  log: RunLog,
): void {
  const perStep = batchSize * gradientAccumulationSteps * context;
  log.note(`run       ${runDir}, on ${device}`);
  log.note(`training  ${tune.join(" + ")}: ${formatInteger(parameters.trained)} parameters`);
  if (parameters.added > 0) {
    const share = ((100 * parameters.added) / parameters.base).toFixed(4);
    log.note(`new       ${formatInteger(parameters.added)} parameters, ${share} % of the base`);
  }
  const inserted = opened.temperatures?.insertion.describe(opened.model) ?? [];
  for (const { place, form, extent, parameters } of inserted)
    log.note(`  ${place.padEnd(6)}  ${form}, ${extent}: ${formatInteger(parameters)}`);
  log.note(
    `data      ${formatInteger(stream.length)} tokens; ${steps} steps of ${formatInteger(perStep)}`,
  );
  log.note(`held out  ${reportPlan.windows.length} windows of ${context} tokens`);
}

/** First Ctrl+C or SIGTERM: finish the step and save. Second: leave at once, by a signal that nothing can hold up. */
function stopOnSignal(log: RunLog): { readonly signal: AbortSignal; readonly release: () => void } {
  const controller = new AbortController();
  const onSignal = () => {
    if (controller.signal.aborted) process.kill(process.pid, "SIGKILL");
    controller.abort();
    log.note("stopping after this step; once more to leave at once");
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) process.on(signal, onSignal);
  return {
    signal: controller.signal,
    release: () => {
      for (const signal of signals) process.off(signal, onSignal);
    },
  };
}

const collect = (value: string, previous: readonly string[] = []) => [...previous, value];

function described(description: string, initial: unknown): string {
  const isPlain = typeof initial === "number" || typeof initial === "string";
  return isPlain ? `${description} (default: ${initial})` : description;
}
