// What a run's model answers before and after it trains: the tasks of its recipe, and which answers were won or lost.

import { dirname, join } from "node:path";
import { evaluate } from "../evaluate/evaluation.ts";
import { compareAnswers, differingConditions, type TaskResult } from "../evaluate/results.ts";
import { runFiles } from "../files/names.ts";
import { readJsonIfSound, writeJson } from "../files/json.ts";
import type { OpenedModel } from "../model/open.ts";
import { present, type RunAtWork, scoring } from "./work.ts";

type Answers = Readonly<Record<string, TaskResult>>;

/** The base's answers, asked for once in a run, or once for several, before anything trains. */
export async function askBase(
  work: RunAtWork,
  base: OpenedModel,
  baseSha256: string,
): Promise<Answers> {
  const { runDir, sharedBase } = work;
  const isShared = sharedBase !== undefined && baseSha256 !== "random";
  const folders = isShared ? [runDir, dirname(sharedBase)] : [runDir];
  const paths = folders.map((folder) => join(folder, runFiles.tasks));
  const kept = await Promise.all(paths.map((path) => readJsonIfSound(path)));
  const answers: Record<string, TaskResult> = {};
  for (const [name, plan] of Object.entries(work.tasks)) {
    const known = kept
      .map((results) => results?.[name] as TaskResult | undefined)
      .find((result) => {
        const isOf = result?.modelSha256 === baseSha256;
        return isOf && differingConditions(plan.conditions, result).length === 0;
      });
    answers[name] = known ?? (await ask(work, name, base, "before"));
    for (const path of paths) await writeJson(path, answers);
  }
  return answers;
}

/** What became of the base's answers. */
export async function compareAnswered(work: RunAtWork, model: OpenedModel, base: Answers) {
  const results: Record<string, ReturnType<typeof changeOf>> = {};
  for (const [name, before] of Object.entries(base))
    results[name] = changeOf(before, await ask(work, name, model, "after"));
  return results;
}

const changeOf = (before: TaskResult, after: TaskResult) => {
  return { before, after, change: compareAnswers(after, before) };
};

async function ask(work: RunAtWork, name: string, model: OpenedModel, when: "before" | "after") {
  const plan = work.tasks[name]!;
  const longest = Math.max(...plan.groups.map(({ context }) => context));
  // As many tokens at a time as training has, for which there is room.
  const batchSize = Math.max(1, Math.floor((work.fit.batchSize * work.context) / longest));
  const values = when === "before" ? present(work, model) : {};
  const how = { batchSize, ...scoring(work, `${name} ${when}`, plan), ...values };
  return (await evaluate(work.engine, model, plan, how)).result;
}
