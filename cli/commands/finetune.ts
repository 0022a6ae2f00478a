// `ssa finetune`: from a base and data to a trained, saved and reported model.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../../src/core/errors.ts";
import { newestRun, runFiles } from "../../src/files/run-folder.ts";
import { findRecipe } from "../../src/options/find.ts";
import { contradictions, loadRecipe, type RecipeSources } from "../../src/options/load.ts";
import { type Recipe, recipeOptions } from "../../src/options/schema.ts";
import { flag, maybe, oneOf, preset, text, texts, type Values } from "../../src/options/values.ts";
import { CHECKPOINTS, type OpenRun, startRun, withRun } from "../../src/run/fine-tune.ts";
import { finishedReport, refuseUsed } from "../../src/run/folder.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import { planRun } from "../../src/run/plan.ts";
import type { Prepared } from "../../src/run/prepare.ts";
import { defineCommand, type Typed } from "../command.ts";
import { formatInteger } from "../console.ts";
import { type CommandIo, print } from "../io.ts";
import { LOG_FORMATS, openLog, type RunLog } from "../log.ts";
import { places } from "../models.ts";
import { planText } from "../plan.ts";
import { reportText } from "../report.ts";
import { stoppable } from "../stop.ts";

const options = {
  recipe: maybe(text("file"), "recipe file, or the name of a shipped one"),
  set: maybe(texts("path=value"), "set a nested key, e.g. temperatures.key.token=true"),
  resume: flag("continue the run at --out, or the newest under checkpoints/"),
  logFormat: preset(
    oneOf(LOG_FORMATS, "format"),
    "auto",
    "json: JSON lines; else lines for people",
  ),
  dryRun: flag("resolve everything, print the plan, train nothing"),
  json: flag("print the report (or the plan) as one JSON document"),
};

type Flags = Values<typeof options>;

export const command = defineCommand({
  options,
  recipe: recipeOptions,
  examples: `Example:
  $ ssa finetune --base tiny-gpt2 --data moby-dick --steps 100`,
  async run(flags, io, typed) {
    const { recipe, runDir: given } = await resolveRun(flags, typed, io);
    const log = openLog(io, flags.logFormat);
    const tell = (report: RunReport, runDir: string) =>
      print(io, flags.json, report, () => reportText(report, runDir, io));
    const done = flags.resume ? await finishedReport(given!) : undefined;
    if (done) {
      log.note(`${given} is finished: its report again`);
      return tell(done, given!);
    }
    const train = async (run: OpenRun, signal: AbortSignal) => {
      const { prepared, engine, fit } = run;
      if (flags.dryRun) {
        const plan = await planRun(recipe, prepared, engine, fit);
        return print(io, flags.json, plan, () => planText(plan, io));
      }
      const result = await startRun(run, {
        runDir: given,
        isResumed: flags.resume,
        onStart: (runDir) => announce(prepared, recipe, engine.description, runDir, log),
        onEvent: (event) => log.event(event),
        signal,
      });
      io.progress.done();
      const { runDir } = result;
      if (result.outcome === "finished") {
        tell(result.report, runDir);
        for (const line of whatNext(recipe, runDir)) log.note(line);
        return;
      }
      const { step } = result;
      const where = step === null ? "stopped" : `stopped and saved after step ${step}`;
      log.note(`${where}; continue: ssa finetune --resume --out ${word(runDir)}`);
      io.exitCode = 130;
    };
    await withRun(recipe, places(io, log.note), (run) =>
      stoppable(io, "after this step", (signal) => train(run, signal)),
    );
  },
});

/** The recipe, and the folder of a run that has one: named, or of the run that is resumed as it was. */
async function resolveRun(flags: Flags, typed: Typed, io: CommandIo) {
  const isResumed = flags.resume;
  const given = typed["out"] as string | undefined;
  const out = given ?? (isResumed ? await newestRun(CHECKPOINTS) : undefined);
  if (isResumed && out === undefined)
    throw new UserError(`there is no run under ${CHECKPOINTS}/ to resume`, {
      hint: "name its folder: --resume --out DIR",
    });
  const path = join(out ?? "", runFiles.recipe);
  const sources = await recipeSources(flags, typed, io);
  if (isResumed && existsSync(path))
    return { recipe: await resumedRecipe(path, sources), runDir: out };
  const recipe = loadRecipe(sources);
  const runDir = out ?? recipe.out ?? undefined;
  if (runDir && !isResumed) await refuseUsed(runDir);
  return { recipe, runDir };
}

/** The recipe that a run began with; flags that contradict it are refused. */
async function resumedRecipe(path: string, sources: RecipeSources): Promise<Recipe> {
  const saved = loadRecipe({ file: { path, text: await readFile(path, "utf8") } });
  const differing = contradictions(loadRecipe({ ...sources, env: {}, saved }), saved);
  if (differing.length === 0) return saved;
  const list = differing.map(
    ({ key, saved, given }) => `${key} is ${JSON.stringify(saved)}, not ${JSON.stringify(given)}`,
  );
  throw new UserError(`the run has another recipe, ${path}: ${list.join("; ")}`, {
    hint: "resume without these options, or start a new run",
  });
}

async function recipeSources(
  { recipe, set = [] }: Flags,
  typed: Typed,
  { env, packageRoot }: CommandIo,
): Promise<RecipeSources> {
  const path = recipe && (await findRecipe(recipe, packageRoot));
  const flags = Object.fromEntries(recipeOptions.map(({ key }) => [key, typed[key]]));
  const file = path ? { file: { path, text: await readFile(path, "utf8") } } : {};
  return { ...file, env, sets: set, flags };
}

/** The commands that use what was made. */
function whatNext({ data, evalData, textColumn, nullRows }: Recipe, runDir: string): string[] {
  const column = textColumn === null ? "" : ` --text-column ${word(textColumn)}`;
  const nulls = nullRows === "error" ? "" : ` --null-rows ${nullRows}`;
  const model = word(join(runDir, runFiles.final));
  return [
    `next      ssa eval --model ${model} --data ${word(evalData ?? data)}${column}${nulls}`,
    `          ssa convert --model ${model} --to onnx --out ${word(`${runDir}-onnx`)}`,
  ];
}

/** A word as a shell takes it. */
const word = (text: string) =>
  /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

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
    `data      ${formatInteger(stream.tokens.length)} tokens; ${steps} steps of ${formatInteger(perStep)}`,
  );
  log.note(`held out  ${reportPlan.windows.length} windows of ${context} tokens`);
}
