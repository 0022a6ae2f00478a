// `ssa compare`: arms of a recipe, each trained with several seeds, or finished runs: which is better, and at what cost.

import { basename, join } from "node:path";
import { UserError } from "../../src/core/errors.ts";
import type { ArmsCompared, FailedRun } from "../../src/evaluate/comparison.ts";
import { loadComparison, seedsOption } from "../../src/options/comparison.ts";
import { recipeOptions } from "../../src/options/schema.ts";
import { flag, maybe, shard, shared, text, texts } from "../../src/options/values.ts";
import { comparisonTables } from "../../src/report/tables.ts";
import { compare, compareRuns } from "../../src/run/compare.ts";
import { CHECKPOINTS } from "../../src/run/fine-tune.ts";
import { defineCommand } from "../command.ts";
import * as format from "../../src/core/format.ts";
import { checkDealt, places, print, recipeSources } from "../io.ts";
import { logFormat, openLog } from "../run-text.ts";

const RUNS = "folder of the runs (default: checkpoints/<name of the recipe>)";

export const command = defineCommand({
  options: {
    runs: maybe(texts("run"), "folders of finished runs to compare, instead of a recipe"),
    recipe: maybe(text("file"), "recipe with arms and seeds, or the name of a shipped one"),
    seeds: seedsOption,
    set: maybe(texts("path=value"), "set a nested key of all arms"),
    shard: maybe(shard(), "train only every n-th run from the i-th on, as one of n jobs"),
    collect: flag("compare what --shard trained; train nothing"),
    logFormat,
    refresh: shared.refresh,
    rankTimeout: shared.rankTimeout,
    logRanks: shared.logRanks,
    json: flag("print the comparison as one JSON document"),
  },
  argument: "runs",
  // Each run has its own; --out is the folder that they are in.
  recipe: recipeOptions
    .filter(({ key }) => key !== "seed")
    .map((option) => ({ ...option, ...(option.key === "out" && { description: RUNS }) })),
  stops: "after this step",
  examples: `Examples, the second one of runs that are there:
  $ ssa compare --recipe compare --seeds 0,1,2
  $ ssa compare checkpoints/mine-1 checkpoints/mine-2`,
  async run({ runs = [], ...flags }, io, { typed, signal }) {
    const tell = (result: ArmsCompared) =>
      print(io, flags.json, result, () => comparisonText(result));
    if (runs.length > 0 && flags.recipe)
      throw new UserError("expected the folders of runs or a --recipe, found both");
    if (runs.length > 0) return tell(await compareRuns(runs));
    checkDealt(flags);
    const { file, ...sources } = await recipeSources(io, flags, typed);
    if (!file)
      throw new UserError("expected a --recipe with arms, or the folders of finished runs", {
        hint: "ssa compare --recipe compare is an example; docs/compare.md explains it",
      });
    const comparison = loadComparison({ ...sources, file, seeds: flags.seeds });
    const out = comparison.out ?? join(CHECKPOINTS, basename(file.path).replace(/\.\w+$/, ""));
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
    else print(io, flags.json, { out, failed }, () => [`trained in ${out}; next: --collect`]);
    for (const run of failed) log.note(`${nameOf(run)} failed: ${run.reason}`);
    if (failed.length > 0) io.exitCode = 1;
  },
});

function comparisonText(result: ArmsCompared) {
  const { scored, arms, failed } = result;
  const { windows = 0, context = 0, numTokens = 0 } = scored;
  const what = `${format.integer(numTokens)} tokens in ${windows} windows of ${context}`;
  const isOne = arms.some(({ seeds }) => seeds.length === 1);
  const facts = {
    scored: arms.length && what,
    intervals: isOne ? "over windows; other seeds were not tried" : "over windows and seeds",
    failed: failed.map(nameOf).join(", "),
  } as const;
  return [...comparisonTables(result).map(([, table]) => table), facts];
}

const nameOf = ({ arm, seed }: FailedRun) => `${arm}, seed ${seed}`;
