// Multiple choice against prompts written by hand from the harness's published templates, log-likelihoods by PyTorch
// (tests/fixtures/make_tasks.py), and accuracies computed from those.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import { openEngine } from "../../src/engines/index.ts";
import { evaluatePlan } from "../../src/evaluate/evaluation.ts";
import { compareAnswers } from "../../src/evaluate/results.ts";
import { choiceRows } from "../../src/evaluate/tasks/choice-rows.ts";
import { tasks } from "../../src/evaluate/tasks/index.ts";
import { openModel } from "../../src/model/open.ts";
import { evaluate as evaluateModel } from "../../src/run/evaluate.ts";
import { allClose, temporaryFolder } from "../helpers.ts";

const engine = await openEngine("cpu", { threads: 2 });
after(() => engine.dispose());
const tinyGpt2 = join(import.meta.dirname, "../../checkpoints/tiny-gpt2");
const fixtures = join(import.meta.dirname, "../fixtures/tasks");
const json = async (name: string) =>
  JSON.parse(await readFile(join(fixtures, name), "utf8")) as unknown;

type Name = keyof typeof choiceRows;
type Questions = readonly { readonly pairs: readonly [string, string][]; readonly gold: number }[];
const prompts = (await json("prompts.json")) as Readonly<Record<Name, Questions>>;
const expected = (await json("expected.json")) as Readonly<Record<Name, number[][]>>;
const names = Object.keys(choiceRows) as Name[];

const splitOf = async (path: string) => selectSplit(await findDataFiles(path), "evaluation");
const rowsOf = async (name: Name) => {
  const text = await readFile(join(fixtures, `${name}.jsonl`), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
};

/** What the harness does with log-likelihoods. */
function accuracy(name: Name, isNormalized: boolean) {
  const isRight = prompts[name].map(({ pairs, gold }, question) => {
    const scores = pairs.map(([, continuation], i) => {
      const logLikelihood = expected[name][question]![i]!;
      return isNormalized ? logLikelihood / (continuation.length - 1) : logLikelihood;
    });
    return scores.indexOf(Math.max(...scores)) === gold ? 1 : 0;
  });
  const mean = isRight.reduce<number>((sum, is) => sum + is, 0) / isRight.length;
  const squares = isRight.reduce<number>((sum, is) => sum + (is - mean) ** 2, 0);
  return { isRight, mean, stderr: Math.sqrt(squares / (isRight.length - 1) / isRight.length) };
}

for (const name of names) {
  test(`${name}: prompts as written by hand`, async () => {
    assert.deepEqual(
      (await rowsOf(name)).map((row) => {
        const { pairs, gold } = choiceRows[name].question(row);
        return { pairs: pairs.map(([context, choice]) => [context, ` ${choice}`]), gold };
      }),
      prompts[name],
    );
  });

  test(`${name}: log-likelihoods as PyTorch's, packed or not, and what follows`, async () => {
    const opened = await openModel(tinyGpt2);
    const split = await splitOf(join(fixtures, `${name}.jsonl`));
    for (const mayPack of [true, false]) {
      const plan = await tasks[name].plan(opened, split, { mayPack });
      const { result, losses } = await evaluatePlan(engine, opened, plan, { batchSize: 2 });
      const order = plan.groups.flatMap(({ windows }) => windows.map(({ text }) => text));
      const nats = order.map((text) => -expected[name].flat()[text]!);
      allClose(
        losses.map((loss) => loss.nats),
        nats,
        { rtol: 2e-5, atol: 1e-4 },
      );
      const acc = accuracy(name, false);
      assert.deepEqual([result.acc, result.outcomes], [acc.mean, acc.isRight.join("")]);
      allClose([result.acc_stderr!], [acc.stderr], { atol: 1e-12 });
      const norm = choiceRows[name].isNormalized ? accuracy(name, true) : undefined;
      assert.equal(result.acc_norm, norm?.mean);
      if (norm) allClose([result.acc_norm_stderr!], [norm.stderr], { atol: 1e-12 });
      assert.deepEqual([result.task, result.numDocuments], [name, 2]);
    }
  });
}

test("rows that ask nothing are refused, or left out", async (t) => {
  const opened = await openModel(tinyGpt2);
  const path = join(await temporaryFolder(t), "rows.jsonl");
  const plan = async (name: Name, change: object, options = {}) => {
    const [first, second] = await rowsOf(name);
    const rows = [{ ...first, ...change }, second];
    await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
    return tasks[name].plan(opened, await splitOf(path), options);
  };
  const wrong: readonly (readonly [Name, object, RegExp])[] = [
    ["hellaswag", { label: "" }, /rows\.jsonl:1: field "label" names none of 4 choices: ""/],
    ["piqa", { label: -1 }, /field "label" names none of 2 choices: -1/],
    ["piqa", { goal: null }, /no field "goal", only goal, sol1/],
    ["piqa", { sol2: 7 }, /field "sol2" is number, expected a string/],
    ["winogrande", { answer: "" }, /field "answer" names none of 2 choices/],
    ["winogrande", { sentence: "no gap" }, /field "sentence" has no blank/],
    ["arc_easy", { answerKey: "E" }, /field "answerKey" names none of 4 choices/],
    [
      "arc_easy",
      { choices: ["a", "b"] },
      /field "label" is \(absent\), expected a list of strings/,
    ],
    ["hellaswag", { endings: "one" }, /field "endings" is "one", expected a list of strings/],
  ];
  for (const [name, change, message] of wrong)
    await assert.rejects(plan(name, change), { name: "UserError", message });
  const { conditions } = await plan("piqa", { label: 9 }, { badRows: "skip" });
  assert.equal(conditions.task, "piqa");
  await assert.rejects(plan("piqa", {}, { context: 4 }), /question 1 has \d+ tokens before its ch/);
  await assert.rejects(plan("piqa", {}, { stride: 4 }), /piqa scores whole documents/);
  await writeFile(`${path}.txt`, "no rows");
  await assert.rejects(
    tasks.piqa.plan(opened, await splitOf(`${path}.txt`), {}),
    /has no rows with goal, sol1, sol2, label/,
  );
});

test("another right answer is other data; a limit takes whole questions", async (t) => {
  const opened = await openModel(tinyGpt2);
  const path = join(await temporaryFolder(t), "rows.jsonl");
  const rows = await rowsOf("arc_easy");
  const shaOf = async (answerKey: string) => {
    const changed = [{ ...rows[0], answerKey }, rows[1]];
    await writeFile(path, changed.map((row) => JSON.stringify(row)).join("\n"));
    const { conditions } = await tasks.arc_easy.plan(opened, await splitOf(path), {});
    return conditions.dataSha256;
  };
  assert.notEqual(await shaOf("A"), await shaOf("B"));
  const { groups } = await tasks.arc_easy.plan(opened, await splitOf(path), { windows: 1 });
  const texts = groups.flatMap(({ windows }) => windows.map(({ text }) => text));
  assert.deepEqual(new Set(texts), new Set([4, 5, 6]));
});

test("answers are compared by those that changed (McNemar, exact)", () => {
  const of = (outcomes: string) => {
    const conditions = { task: "piqa", context: 256, dataSha256: "aa", numTokens: 9 };
    return { ...conditions, outcomes, modelSha256: "bb" };
  };
  const compare = (then: string, now: string) => compareAnswers(of(now), of(then));
  // 1 won and 7 lost: p = 2 (C(8, 0) + C(8, 1)) / 2^8; all 6 lost: 2 / 2^6; 5 lost: 2 / 2^5.
  const { pValue, ...rest } = compare("0111111101", "1000000001");
  allClose([pValue], [(2 * 9) / 256], { rtol: 1e-12 });
  assert.deepEqual(rest, {
    hasRegressed: false,
    acc: 0.2,
    baselineAcc: 0.8,
    won: 1,
    lost: 7,
    verdict: "cannot tell",
  });
  allClose([compare("111111", "000000").pValue], [2 / 64], { rtol: 1e-12 });
  assert.equal(compare("111111", "000000").hasRegressed, true);
  assert.equal(compare("000000", "111111").hasRegressed, false);
  assert.equal(compare("11111", "00000").hasRegressed, false);
  assert.deepEqual(compare("0101", "0101").pValue, 1);
  const { outcomes: _, ...without } = of("01");
  assert.throws(() => compareAnswers(of("01"), without), /it has no outcomes of these questions/);
});

test("perplexity needs data", async () => {
  await assert.rejects(evaluateModel({ model: tinyGpt2 }), /perplexity needs data to measure on/);
});
