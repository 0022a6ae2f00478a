// `ssa runs`: what was trained here, and what of it goes.

import { createInterface } from "node:readline/promises";
import { UserError } from "../../src/core/errors.ts";
import { flag, maybe, texts } from "../../src/options/values.ts";
import { deleteRun, findRuns, listRuns, type RunEntry } from "../../src/run/runs.ts";
import { defineCommand } from "../command.ts";
import type { Section } from "../console.ts";
import * as format from "../../src/core/format.ts";
import { type CommandIo, print } from "../io.ts";

export const command = defineCommand({
  argument: "words",
  options: {
    words: maybe(texts("folder"), "folder of runs (default: checkpoints); or: delete NAME..."),
    best: flag("those first whose perplexity fell most"),
    yes: flag("delete without asking"),
  },
  examples: `Examples:
  $ ssa runs --best
  $ ssa runs delete gpt2-wikitext-1 gpt2-wikitext-2`,
  async run({ words = [], best, yes, json }, io) {
    const [word, ...names] = words;
    if (word === "delete") return remove(names, yes, json, io);
    if (names.length > 0) throw new UserError(`expected one folder, found ${names.length + 1}`);
    const runs = await listRuns(word);
    const by = ({ percent }: RunEntry) => percent ?? Infinity;
    if (best) runs.sort((a, b) => Number(by(a) > by(b)) - Number(by(a) < by(b)));
    print(io, json, runs, () => describe(runs, io.columns));
  },
});

const total = (runs: readonly RunEntry[]) =>
  `${format.counted(runs.length, "run")}, ${format.bytes(runs.reduce((sum, run) => sum + run.sizeBytes, 0))}`;

function describe(runs: readonly RunEntry[], columns: number): Section[] {
  const rows = runs.map(({ before, after, percent, ...run }) => [
    run.name,
    run.when.slice(0, 16).replace("T", " "),
    // Where there is room: the name is made of both.
    ...(columns > 110 ? [run.base ?? "?", run.data.join(", ")] : []),
    run.tune.join(",") || "?",
    before === null ? "" : `${format.perplexity(before)} → ${format.perplexity(after!)}`,
    percent === null ? "" : format.change(percent),
    format.bytes(run.sizeBytes),
    run.state,
  ]);
  const names = ["name", "written", ...(columns > 110 ? ["base", "data"] : [])];
  const header = [...names, "tune", "perplexity", "change", "size", "state"];
  return runs.length > 0 ? [[header, rows], total(runs)] : ["no runs"];
}

async function remove(names: readonly string[], isSure: boolean, json: boolean, io: CommandIo) {
  if (names.length === 0)
    throw new UserError("expected the names of runs, found none", { hint: "ssa runs delete NAME" });
  const runs = (await Promise.all(findRuns(names).map((folder) => listRuns(folder)))).flat();
  const busy = runs.find(({ state }) => state === "running");
  if (busy) throw new UserError(`${busy.folder} is at work`, { hint: "wait for it or stop it" });
  const question = `delete ${runs.map(({ folder }) => folder).join(", ")} (${total(runs)})?`;
  if (!isSure && !(io.stdin.isTTY && io.isTty))
    throw new UserError(question, { hint: "to delete without a terminal give --yes" });
  if (!isSure) {
    const terminal = createInterface({ input: io.stdin, output: process.stderr });
    const answer = await terminal.question(`${question} [y/N] `).finally(() => terminal.close());
    if (!/^y(es)?$/i.test(answer.trim())) return print(io, json, [], () => ["nothing deleted"]);
  }
  for (const { folder } of runs) await deleteRun(folder);
  print(io, json, runs, () => [`deleted: ${total(runs)}`]);
}
