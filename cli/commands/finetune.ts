// `ssa finetune`: from a base and data to a trained, saved and reported model.

import { existsSync } from "node:fs";
import { readFile, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { type Command, Option } from "commander";
import { UserError } from "../../src/core/errors.ts";
import { selectSplit } from "../../src/data/data-files.ts";
import { newestRun, nextRunName, runFiles } from "../../src/formats/run-folder.ts";
import { findRecipe } from "../../src/recipe/find.ts";
import { contradictions, loadRecipe, type RecipeSources } from "../../src/recipe/load.ts";
import { type Recipe, recipeOptions } from "../../src/recipe/schema.ts";
import { finetune } from "../../src/run/finetune.ts";
import { type Prepared, prepareRun, type RunData } from "../../src/run/prepare.ts";
import { formatInteger } from "../console.ts";
import { findData } from "../data.ts";
import { startEngine } from "../engine.ts";
import { cacheFolder, type CommandIo } from "../io.ts";
import { type LogFormat, openLog, type RunLog } from "../log.ts";
import { findModel, hubOptions } from "../models.ts";
import { reportText } from "../report.ts";

interface FinetuneFlags extends Readonly<Record<string, unknown>> {
  readonly recipe?: string;
  readonly set: readonly string[];
  readonly resume?: boolean;
  readonly logFormat: LogFormat;
  readonly json?: boolean;
}

const CHECKPOINTS = "checkpoints";

export function finetuneCommand(program: Command, io: CommandIo): void {
  const command = program
    .command("finetune")
    .description("train temperatures (or more) on text and report the change of perplexity")
    .option("--recipe <file>", "recipe file, or the name of a shipped one")
    .option(
      "--set <path=value>",
      "set a nested key, e.g. temperatures.key.token=true",
      collect,
      [],
    );
  for (const { flag, description, initial } of recipeOptions)
    if (flag) command.option(flag, described(description, initial));
  command
    .option("--resume", "continue the run at --out, or the newest under checkpoints/")
    .addOption(
      new Option("--log-format <format>", "auto: human-readable on a terminal, else JSON lines")
        .choices(["auto", "human", "json"])
        .default("auto"),
    )
    .option("--json", "print the report as one JSON document")
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
  const log = openLog(io, flags.logFormat);
  const settings = hubOptions(io);
  const baseFolder = await findModel(recipe.base, io, settings);
  const prepared = await prepareRun(recipe, baseFolder, await findRunData(recipe, io), {
    cacheFolder: cacheFolder(io, "tokens"),
    threads: recipe.threads === "auto" ? 2 : recipe.threads,
  });
  const threads = recipe.threads === "auto" ? 0 : recipe.threads;
  const engine = await startEngine(recipe.device, threads, log.note);
  announce(prepared, recipe, engine.description, runDir, log);
  const stop = stopOnSignal(log);
  try {
    const result = await finetune({
      recipe,
      runDir,
      prepared,
      engine,
      base: { name: recipe.base },
      isResumed: flags.resume ?? false,
      onEvent: (event) => log.event(event),
      shouldStop: () => stop.isAsked,
      now: io.now,
      peakRssBytes: () => process.resourceUsage().maxRSS * 1024,
    });
    log.done();
    if (result.outcome === "interrupted") {
      log.note(
        `stopped after step ${result.step}; continue: ssa finetune --resume --out ${runDir}`,
      );
      io.exitCode = 130;
      return;
    }
    const { report } = result;
    const text = flags.json ? JSON.stringify(report, null, 2) : reportText(report, runDir, io);
    io.stdout.write(`${text}\n`);
  } finally {
    log.done();
    stop.release();
    await engine.dispose();
  }
}

/** The recipe and the folder of the run: a new one, or one that is resumed as it was. */
async function resolveRun(flags: FinetuneFlags, io: CommandIo) {
  const sources = await recipeSources(flags, io);
  if (!flags.resume) {
    const recipe = loadRecipe(sources);
    const runDir = recipe.out ?? join(CHECKPOINTS, await nextRunName(CHECKPOINTS, runStem(recipe)));
    if (existsSync(runDir) && (await readdir(runDir)).length > 0)
      throw new UserError(`${runDir} exists and is not empty`, {
        hint: "continue it with --resume, or name another --out",
      });
    return { recipe: { ...recipe, out: runDir }, runDir };
  }
  const out = typeof flags["out"] === "string" ? flags["out"] : await newestRun(CHECKPOINTS);
  if (out === undefined)
    throw new UserError(`there is no run under ${CHECKPOINTS}/ to resume`, {
      hint: "name its folder: --resume --out DIR",
    });
  const path = join(out, runFiles.recipe);
  if (!existsSync(path)) {
    // Killed before its first word, or never started: the flags must say what to do.
    return { recipe: { ...loadRecipe(sources), out }, runDir: out };
  }
  const saved = loadRecipe({ file: { path, text: await readFile(path, "utf8") } });
  const differing = contradictions(loadRecipe({ ...sources, saved }), saved);
  if (differing.length > 0)
    throw new UserError(
      `the run at ${out} has another recipe: ${differing
        .map(
          ({ key, saved, given }) =>
            `${key} is ${JSON.stringify(saved)}, not ${JSON.stringify(given)}`,
        )
        .join("; ")}`,
      { hint: "resume without these options, or start a new run" },
    );
  return { recipe: saved, runDir: out };
}

async function recipeSources(flags: FinetuneFlags, io: CommandIo): Promise<RecipeSources> {
  const path = flags.recipe && (await findRecipe(flags.recipe, io.packageRoot));
  const given = recipeOptions.map(({ key }) => [key, flags[key]] as const);
  const device = flags["device"] ?? io.env["SSA_DEVICE"];
  return {
    ...(path && { file: { path, text: await readFile(path, "utf8") } }),
    sets: flags.set,
    flags: { ...Object.fromEntries(given), ...(device !== undefined && { device }) },
  };
}

/** `gpt2-wikitext` of base and data. */
function runStem({ base, data }: Recipe): string {
  const word = (name: string) =>
    basename(name.replace(/[@:].*$/, "").replace(/\/+$/, "")).replace(/\.\w+$/, "") || "run";
  return `${word(base)}-${word(data)}`;
}

async function findRunData(recipe: Recipe, io: CommandIo): Promise<RunData> {
  const settings = hubOptions(io);
  const data = await findData(recipe.data, io, settings, ["train", "validation"]);
  const held = recipe.evalData ? await findData(recipe.evalData, io, settings) : undefined;
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
  { parameters, context, reportPlan, stream }: Prepared,
  { tune, steps, batchSize, gradientAccumulationSteps }: Recipe,
  device: string,
  runDir: string,
  log: RunLog,
): void {
  const share = ((100 * parameters.added) / parameters.base).toFixed(4);
  const perStep = batchSize * gradientAccumulationSteps * context;
  log.note(`run       ${runDir}, on ${device}`);
  log.note(
    `training  ${tune.join(" + ")}: ${formatInteger(parameters.trained)} parameters, ${formatInteger(parameters.added)} of them new (${share} % of the base)`,
  );
  log.note(
    `data      ${formatInteger(stream.length)} tokens; ${steps} steps of ${formatInteger(perStep)}; ${reportPlan.windows.length} held-out windows of ${context}`,
  );
}

/** First Ctrl+C or SIGTERM: finish the step and save. Second: leave at once, by a signal that nothing can hold up. */
function stopOnSignal(log: RunLog) {
  const stop = { isAsked: false, release: () => undefined as void };
  const onSignal = () => {
    if (stop.isAsked) process.kill(process.pid, "SIGKILL");
    stop.isAsked = true;
    log.note("stopping after this step; once more to leave at once");
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  stop.release = () => {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  };
  return stop;
}

const collect = (value: string, previous: readonly string[]) => [...previous, value];

function described(description: string, initial: unknown): string {
  const isPlain = typeof initial === "number" || typeof initial === "string";
  return isPlain ? `${description} (default: ${initial})` : description;
}
