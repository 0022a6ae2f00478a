// `ssa finetune`: from a base and data to a trained, saved and reported model.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../../src/core/errors.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import { newestRun, runFiles } from "../../src/files/run-folder.ts";
import { findRecipe, loadRecipe, resumedRecipe } from "../../src/options/load.ts";
import { recipeOptions } from "../../src/options/schema.ts";
import { flag, maybe, oneOf, preset, text, texts, type Values } from "../../src/options/values.ts";
import { CHECKPOINTS, startRun, withRun } from "../../src/run/fine-tune.ts";
import { finishedReport, refuseUsed } from "../../src/run/folder.ts";
import { planRun } from "../../src/run/plan.ts";
import { type Call, defineCommand } from "../command.ts";
import { type CommandIo, places, print } from "../io.ts";
import { LOG_FORMATS, openLog } from "../log.ts";
import { howToResume, planText, reportText, runFacts, whatNext } from "../run-text.ts";
import { facts } from "../console.ts";

const options = {
  recipe: maybe(text("file"), "recipe file, or the name of a shipped one"),
  set: maybe(texts("path=value"), "set a nested key, e.g. temperatures.key.token=true"),
  resume: flag("continue the run at --out, or the newest under checkpoints/"),
  logFormat: preset(oneOf(LOG_FORMATS, "format"), "auto", "json: JSON lines; else for people"),
  dryRun: flag("resolve everything, print the plan, train nothing"),
  json: flag("print the report (or the plan) as one JSON document"),
};

export const command = defineCommand({
  options,
  recipe: recipeOptions,
  stops: "after this step",
  examples: `Example:
  $ ssa finetune --base tiny-gpt2 --data moby-dick --steps 100`,
  async run(flags, io, { typed, signal }) {
    const { recipe, runDir: given } = await resolveRun(flags, typed, io);
    const log = openLog(io, flags.logFormat);
    const tell = (report: RunReport, runDir: string) => {
      print(io, flags.json, report, () => reportText(report, runDir, io));
      for (const line of whatNext(report, runDir, io)) log.note(line);
    };
    const done = flags.resume ? await finishedReport(given!, recipe.steps) : undefined;
    if (done) {
      log.note(`${given} is finished: its report again`);
      return tell(done, given!);
    }
    await withRun(recipe, { ...places(io, log.note), signal }, async (run) => {
      const { prepared, engine, fit } = run;
      const about = runFacts(prepared, recipe);
      if (flags.dryRun) {
        const plan = await planRun(recipe, prepared, engine, fit);
        return print(io, flags.json, plan, () => planText(plan, about, io));
      }
      const result = await startRun(run, {
        runDir: given,
        isResumed: flags.resume,
        onStart: (runDir) => {
          const where = `${runDir}, on ${engine.description}`;
          for (const line of facts({ run: where, ...about }, Infinity).split("\n")) log.note(line);
        },
        onEvent: (event) => log.event(event),
        signal,
      });
      const { runDir } = result;
      if (result.outcome === "finished") return tell(result.report, runDir);
      io.progress.done();
      const { step } = result;
      const where = step === null ? "stopped" : `stopped and saved after step ${step}`;
      log.note(`${where}; continue: ${howToResume(runDir, io)}`);
      io.exitCode = 130;
    });
  },
});

/** The recipe, and the folder of a run that has one: named, or of the run that is resumed as it was. */
async function resolveRun(flags: Values<typeof options>, typed: Call["typed"], io: CommandIo) {
  const { resume: isResumed, set: sets = [] } = flags;
  const given = typed["out"] as string | undefined;
  const out = given ?? (isResumed ? await newestRun(CHECKPOINTS) : undefined);
  if (isResumed && out === undefined)
    throw new UserError(`there is no run under ${CHECKPOINTS}/ to resume`, {
      hint: "name its folder: --resume --out DIR",
    });
  const read = async (path: string) => ({ path, text: await readFile(path, "utf8") });
  const sources = {
    ...(flags.recipe && { file: await read(await findRecipe(flags.recipe, io.packageRoot)) }),
    env: io.env,
    sets,
    flags: Object.fromEntries(recipeOptions.map(({ key }) => [key, typed[key]])),
  };
  const saved = join(out ?? "", runFiles.recipe);
  if (isResumed && existsSync(saved))
    return { recipe: resumedRecipe(await read(saved), sources), runDir: out };
  const recipe = loadRecipe(sources);
  const runDir = out ?? recipe.out ?? undefined;
  if (runDir && !isResumed) await refuseUsed(runDir);
  return { recipe, runDir };
}
