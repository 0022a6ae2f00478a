// `ssa compare`: arms of a recipe, each trained with several seeds, or finished runs: which is better, and at what cost.

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError } from "../../src/core/errors.ts";
import type { ArmsCompared, FailedRun } from "../../src/evaluate/comparison.ts";
import { loadComparison, seedsOption } from "../../src/options/comparison.ts";
import { findRecipe } from "../../src/options/load.ts";
import { recipeOptions } from "../../src/options/schema.ts";
import * as kind from "../../src/options/values.ts";
import { comparisonTables } from "../../src/report/tables.ts";
import { compare, compareRuns } from "../../src/run/compare.ts";
import { CHECKPOINTS } from "../../src/run/fine-tune.ts";
import { defineCommand } from "../command.ts";
import { facts, table } from "../console.ts";
import * as format from "../../src/core/format.ts";
import { checkDealt, type CommandIo, places, print } from "../io.ts";
import { LOG_FORMATS, openLog } from "../run-text.ts";

const { flag, maybe, oneOf, preset, shared, text, texts } = kind;

const options = {
  runs: maybe(texts("run"), "folders of finished runs to compare, instead of a recipe"),
  recipe: maybe(text("file"), "recipe with arms and seeds, or the name of a shipped one"),
  seeds: seedsOption,
  set: maybe(texts("path=value"), "set a nested key of all arms"),
  shard: maybe(kind.shard(), "train only every n-th run from the i-th on, as one of n jobs"),
  collect: flag("compare what --shard trained; train nothing"),
  logFormat: preset(oneOf(LOG_FORMATS, "format"), "auto", "json: JSON lines; else for people"),
  refresh: shared.refresh,
  rankTimeout: shared.rankTimeout,
  logRanks: shared.logRanks,
  json: flag("print the comparison as one JSON document"),
};

export const command = defineCommand({
  options,
  argument: "runs",
  // Each run has its own; --out is the folder that they are in.
  recipe: recipeOptions.filter(({ key }) => key !== "seed"),
  stops: "after this step",
  examples: `Examples, the second one of runs that are there:
  $ ssa compare --recipe compare --seeds 0,1,2
  $ ssa compare checkpoints/mine-1 checkpoints/mine-2`,
  async run({ runs = [], ...flags }, io, { typed, signal }) {
    const tell = (result: ArmsCompared) =>
      print(io, flags.json, result, () => comparisonText(result, io));
    if (runs.length > 0 && flags.recipe)
      throw new UserError("expected the folders of runs or a --recipe, found both");
    if (runs.length > 0) return tell(await compareRuns(runs));
    checkDealt(flags);
    if (!flags.recipe)
      throw new UserError("expected a --recipe with arms, or the folders of finished runs", {
        hint: "ssa compare --recipe compare is an example; docs/compare.md explains it",
      });
    const path = await findRecipe(flags.recipe, io.packageRoot);
    const file = { path, text: await readFile(path, "utf8") };
    const given = Object.fromEntries(recipeOptions.map(({ key }) => [key, typed[key]]));
    const sources = { file, env: io.env, sets: flags.set ?? [], flags: given };
    const comparison = loadComparison({ ...sources, seeds: typed["seeds"] as string | undefined });
    const out = comparison.out ?? join(CHECKPOINTS, basename(path).replace(/\.\w+$/, ""));
    let log = openLog(io, flags.logFormat);
    const { failed, result } = await compare(comparison, out, {
      ...places(io, flags.refresh, (line) => log.note(line)),
      signal,
      shard: flags.shard,
      collect: flags.collect,
      onRun: ({ arm, seed, folder }, number, of) => {
        // Of each run its own time that is left.
        log = openLog(io, flags.logFormat);
        log.note(`run ${number} of ${of}: ${arm}, seed ${seed}, in ${folder}`);
      },
      onEvent: (event) => log.event(event),
    });
    if (result) tell(result);
    else print(io, flags.json, { out, failed }, () => `trained in ${out}; next: --collect`);
    for (const run of failed) log.note(`${nameOf(run)} failed: ${run.reason}`);
    if (failed.length > 0) io.exitCode = 1;
  },
});

function comparisonText(result: ArmsCompared, { columns }: CommandIo) {
  const { scored, arms, failed } = result;
  const { windows = 0, context = 0, numTokens = 0 } = scored;
  const what = `${format.integer(numTokens)} tokens in ${windows} windows of ${context}`;
  const isOne = arms.some(({ seeds }) => seeds.length === 1);
  return [
    ...comparisonTables(result).map(([, of]) => table(...of, columns)),
    facts({
      scored: arms.length && what,
      intervals: isOne ? "over windows; other seeds were not tried" : "over windows and seeds",
      failed: failed.map(nameOf).join(", "),
    }),
  ].join("\n\n");
}

const nameOf = ({ arm, seed }: FailedRun) => `${arm}, seed ${seed}`;
