// `ssa finetune`: from a base and data to a trained, saved and reported model.

import type { RunReport } from "../../src/evaluate/results.ts";
import { recipeOptions } from "../../src/options/schema.ts";
import { flag, maybe, shared, text, texts } from "../../src/options/values.ts";
import { watchRun } from "../../src/report/loopback.ts";
import { finishedReport, resolveRun, trainRun } from "../../src/run/fine-tune.ts";
import { planRun } from "../../src/run/fit.ts";
import { prepareRun } from "../../src/run/prepare.ts";
import { defineCommand } from "../command.ts";
import { facts } from "../console.ts";
import { places, print, recipeSources } from "../io.ts";
import * as told from "../run-text.ts";

export const command = defineCommand({
  options: {
    recipe: maybe(text("file"), "recipe file, or the name of a shipped one"),
    set: maybe(texts("path=value"), "set a nested key, e.g. temperatures.key.token=true"),
    resume: flag("continue the run at --out, or the newest under checkpoints/"),
    logFormat: told.logFormat,
    refresh: shared.refresh,
    rankTimeout: shared.rankTimeout,
    logRanks: shared.logRanks,
    watch: flag("serve the report's page live, to browsers on this machine"),
    dryRun: flag("resolve everything, print the plan, train nothing"),
    json: flag("print the report (or the plan) as one JSON document"),
  },
  recipe: recipeOptions,
  stops: "after this step",
  examples: `Example:
  $ ssa finetune --base tiny-gpt2 --data moby-dick --steps 100`,
  async run(flags, io, { typed, signal }) {
    const sources = await recipeSources(io, flags, typed);
    const recipe = await resolveRun(sources, typed["out"] as string | undefined, flags.resume);
    const log = told.openLog(io, flags.logFormat);
    const tell = (report: RunReport, runDir: string) => {
      print(io, flags.json, report, () => told.reportText(report, runDir));
      for (const line of told.whatNext(report, runDir, io)) log.note(line);
    };
    const done = flags.resume ? await finishedReport(recipe) : undefined;
    if (done) {
      log.note(`${recipe.out} is finished: its report again`);
      return tell(done, recipe.out!);
    }
    const run = await prepareRun(recipe, { ...places(io, flags.refresh, log.note), signal });
    const about = told.runFacts(run);
    if (flags.dryRun) {
      const plan = await planRun(run);
      const example = run.example();
      const text = () => [told.planFacts(plan, about), told.exampleText(example)];
      return print(io, flags.json, { ...plan, example }, text);
    }
    const result = await trainRun(run, {
      isResumed: flags.resume,
      onStart: (runDir, device) => {
        const where = `${runDir}, on ${device}`;
        for (const line of facts({ run: where, ...about }, Infinity).split("\n")) log.note(line);
        if (flags.watch) watchRun(runDir, (url) => log.note(`watch     ${url}`));
      },
      onEvent: (event) => log.event(event),
      signal,
    });
    const { runDir } = result;
    if (result.outcome === "finished") return tell(result.report, runDir);
    io.progress.done();
    const { step } = result;
    const where = step === null ? "stopped" : `stopped and saved after step ${step}`;
    log.note(`${where}; continue: ${told.howToResume(runDir, io)}`);
    io.exitCode = 130;
  },
});
