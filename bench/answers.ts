// How fast tasks are beside plain windows of the same model: tokens that are seen in a second, padding not counted.

import { copyFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { loadCorpus, readDocuments } from "../src/data/corpus.ts";
import { embeddedData } from "../src/data/readers/files.ts";
import { findDataFiles, selectSplit } from "../src/data/readers/files.ts";
import { loadTokenizer } from "../src/data/tokenizer/tokenizer.ts";
import { numInputs } from "../src/data/windows.ts";
import { openEngine } from "../src/engines/index.ts";
import { evaluatePlan, type EvaluationPlan } from "../src/evaluate/evaluation.ts";
import { tasks } from "../src/evaluate/tasks/index.ts";
import { planWindows } from "../src/evaluate/window-plan.ts";
import { packageRoot } from "../src/files/package-root.ts";
import { openModel } from "../src/model/open.ts";
import { GEOMETRIES, writeRandomModel } from "./models.ts";
import { medianOf } from "./processes.ts";

/** Passages of some 75 words, as LAMBADA's are, and questions with two answers of some 20 words, as PIQA's. */
export async function measureAnswers(folder: string, rounds: number, threads: number) {
  await writeRandomModel(folder, GEOMETRIES["gpt2-quarter"]);
  const tiny = join(packageRoot(), "checkpoints", "tiny-gpt2", "tokenizer.json");
  await copyFile(tiny, join(folder, "tokenizer.json"));
  const split = selectSplit(await embeddedData("moby-dick"), "validation");
  let text = "";
  for await (const piece of readDocuments(split)) text += `${piece.text} `;
  const words = text.split(/\s+/).slice(0, 6000);
  const groups = (size: number) =>
    Array.from({ length: Math.floor(words.length / size) }, (_, i) =>
      words.slice(i * size, (i + 1) * size).join(" "),
    );
  const passages = groups(75).map((text) => ({ text }));
  const halves = groups(60).map((text) => text.split(" "));
  const questions = halves.map((part) => {
    const [goal, sol1, sol2] = [0, 20, 40].map((at) => part.slice(at, at + 20).join(" "));
    return { goal, sol1, sol2, label: 0 };
  });
  const opened = await openModel(folder);
  const planOf = async (name: "lambada" | "piqa", rows: readonly object[]) => {
    const path = join(folder, `${name}.jsonl`);
    await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
    return tasks[name].plan(opened, selectSplit(await findDataFiles(path), "evaluation"), {});
  };
  const corpus = await loadCorpus(split, await loadTokenizer(folder));
  const plans: Readonly<Record<string, EvaluationPlan>> = {
    plain: planWindows(opened, corpus, { context: 512, windows: 32 }),
    lambada: await planOf("lambada", passages),
    piqa: await planOf("piqa", questions),
  };
  const engine = await openEngine("cpu", { threads });
  const rates: Record<string, number[]> = {};
  for (let round = 0; round < rounds; round++)
    for (const [name, plan] of Object.entries(plans)) {
      const windows = plan.groups.flatMap((group) => group.windows);
      const tokens = windows.reduce((sum, window) => sum + numInputs(window), 0);
      let [begun, ended] = [0, 0];
      // From the first batch on: compiling is the same for all.
      let first = 0;
      await evaluatePlan(engine, opened, plan, {
        batchSize: 1,
        onBatch: ({ windows }) => {
          ended = performance.now();
          if (begun === 0) [begun, first] = [ended, windows];
        },
      });
      const share = 1 - first / windows.length;
      (rates[name] ??= []).push((tokens * share) / (ended - begun));
    }
  await engine.dispose();
  const plain = medianOf(rates["plain"]!);
  return ["lambada", "piqa"].map((name) => {
    return { case: "answers", task: name, ratioToWindows: medianOf(rates[name]!) / plain };
  });
}
