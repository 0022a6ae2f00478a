// `ssa finetune`: from a base and data to a trained, saved and reported model.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { runFiles } from "../../src/files/run-folder.ts";
import { findRecipe } from "../../src/options/find.ts";
import type { RecipeSources } from "../../src/options/load.ts";
import { type Recipe, recipeOptions } from "../../src/options/schema.ts";
import { flag, maybe, oneOf, preset, text, texts, type Values } from "../../src/options/values.ts";
import { finishedReport, resolveRun, trainRun } from "../../src/run/fine-tune.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import { planRun } from "../../src/run/plan.ts";
import { type Prepared, prepareRun } from "../../src/run/prepare.ts";
import { defineCommand, type Typed } from "../command.ts";
import { formatInteger } from "../console.ts";
import { type CommandIo, print } from "../io.ts";
import { LOG_FORMATS, openLog, type RunLog } from "../log.ts";
import { places, refresh } from "../models.ts";
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
  refresh,
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
    const sources = await recipeSources(flags, typed, io);
    const recipe = await resolveRun(sources, typed["out"] as string | undefined, flags.resume);
    const log = openLog(io, flags.logFormat);
    const tell = (report: RunReport, runDir: string) =>
      print(io, flags.json, report, () => reportText(report, runDir, io));
    const done = flags.resume ? await finishedReport(recipe) : undefined;
    if (done) {
      log.note(`${recipe.out} is finished: its report again`);
      return tell(done, recipe.out!);
    }
    const run = await prepareRun(recipe, places(io, flags.refresh, log.note));
    if (flags.dryRun) {
      const plan = await planRun(run);
      return print(io, flags.json, plan, () => planText(plan, io));
    }
    await stoppable(io, "after this step", async (signal) => {
      const result = await trainRun(run, {
        isResumed: flags.resume,
        onStart: (runDir, device) => announce(run, device, runDir, log),
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
    });
  },
});

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
function whatNext({ data, evalData, textColumn }: Recipe, runDir: string): string[] {
  const column = textColumn === "text" ? "" : ` --text-column ${word(textColumn)}`;
  const model = word(join(runDir, runFiles.final));
  return [
    `next      ssa eval --model ${model} --data ${word(evalData ?? data)}${column}`,
    `          ssa convert --model ${model} --to onnx --out ${word(`${runDir}-onnx`)}`,
  ];
}

/** A word as a shell takes it. */
const word = (text: string) =>
  /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** What is about to happen, in a few lines. */
function announce(
  { recipe, opened, parameters, numTrained, context, reportPlan, stream }: Prepared,
  device: string,
  runDir: string,
  log: RunLog,
): void {
  const { tune, steps, batchSize, gradientAccumulationSteps } = recipe;
  const perStep = batchSize * gradientAccumulationSteps * context;
  log.note(`run       ${runDir}, on ${device}`);
  log.note(`training  ${tune.join(" + ")}: ${formatInteger(numTrained)} parameters`);
  if (parameters.added > 0) {
    const share = (100 * parameters.share).toFixed(4);
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
