// What a run's model answers before and after it trains: the tasks of its recipe, and which answers were won or lost.

import { join } from "node:path";
import { evaluatePlan } from "../evaluate/evaluation.ts";
import { compareAnswers, differingConditions } from "../evaluate/results.ts";
import type { RunReport, TaskResult } from "../evaluate/results.ts";
import { runFiles } from "../files/names.ts";
import { readJsonIfSound, writeJson } from "../files/json.ts";
import type { OpenedModel } from "../model/opened.ts";
import { keptIn, present, type RunAtWork, scoring } from "./work.ts";

type Answers = Record<string, TaskResult>;

/** The base's answers, asked for once in a run, or once for several, before anything trains. */
export async function askBase(work: RunAtWork, base: OpenedModel, sha256: string) {
  const paths = keptIn(work, sha256).map((folder) => join(folder, runFiles.tasks));
  const kept = await Promise.all(paths.map((path) => readJsonIfSound(path)));
  const answers: Answers = {};
  for (const [name, plan] of Object.entries(work.tasks)) {
    const isKnown = (result: TaskResult | undefined) =>
      result?.modelSha256 === sha256 && differingConditions(plan.conditions, result).length === 0;
    const known = kept.map((results) => results?.[name] as TaskResult | undefined).find(isKnown);
    answers[name] = known ?? (await ask(work, name, base, "before"));
    for (const path of paths) await writeJson(path, answers);
  }
  return answers;
}

export async function compareAnswered(work: RunAtWork, model: OpenedModel, base: Answers) {
  const results: Record<string, NonNullable<RunReport["tasks"]>[string]> = {};
  for (const [name, before] of Object.entries(base)) {
    const after = await ask(work, name, model, "after");
    results[name] = { before, after, change: compareAnswers(after, before) };
  }
  return results;
}

async function ask(work: RunAtWork, name: string, model: OpenedModel, when: "before" | "after") {
  const plan = work.tasks[name]!;
  const longest = Math.max(...plan.groups.map(({ context }) => context));
  // As many tokens at a time as training has, for which there is room.
  const batchSize = Math.max(1, Math.floor((work.fit.batchSize * work.context) / longest));
  const values = when === "before" ? present(work, model) : {};
  const how = { batchSize, ...scoring(work, `${name} ${when}`, plan), ...values };
  return (await evaluatePlan(work.engine, model, plan, how)).result;
}
