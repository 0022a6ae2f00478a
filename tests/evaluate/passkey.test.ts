// Passkeys: what is asked, and answers against greedy generation from full logits, one token after another.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { openEngine } from "../../src/engines/index.ts";
import { evaluatePlan, type EvaluationPlan } from "../../src/evaluate/evaluation.ts";
import { passkey, type PasskeyResult } from "../../src/evaluate/tasks/passkey.ts";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import { decode } from "../data/tiny-tokenizers.ts";
import { sharedData, skipWithout } from "../helpers.ts";

const engine = await openEngine("cpu", { threads: 2 });
after(() => engine.dispose());
const tinyGpt2 = join(import.meta.dirname, "../../checkpoints/tiny-gpt2");
const noData = { description: "nothing", format: "txt", files: [] } as const;
const planOf = async (options: NonNullable<Parameters<typeof passkey.plan>[2]["passkey"]>) => {
  const opened = await openModel(tinyGpt2);
  return { opened, plan: await passkey.plan(opened, noData, { passkey: options }) };
};
const windowsOf = ({ groups }: EvaluationPlan) =>
  groups.flatMap(({ windows }) => windows).toSorted((a, b) => a.text - b.text);

test("documents: as long as asked, the key once, where it is asked, and the question at the end", async () => {
  const asked = { lengths: [128, 256], depths: [0, 50, 100], trials: 3 };
  const { plan } = await planOf(asked);
  const tokenizer = await loadTokenizer(tinyGpt2);
  const texts = plan.texts.map(({ tokens }) => decode(tokenizer, tokens));
  assert.equal(texts.length, 18);
  for (const [i, text] of texts.entries()) {
    const [length, depth] = [
      asked.lengths[Math.floor(i / 9)]!,
      asked.depths[Math.floor(i / 3) % 3]!,
    ];
    const [needle, key] = /The pass key is (\d{5})\. Remember it\. \1 is the pass key\./.exec(
      text,
    )!;
    assert.equal(text.split(key!).length, 4);
    assert.ok(text.endsWith(` What is the pass key? The pass key is ${key}`), text.slice(-80));
    const [before, behind] = text.split(needle) as [string, string];
    const sentences = [before, behind].map((part) => part.split(". ").length - 1);
    // Two are in front of all filler.
    const share = (sentences[0]! - 2) / (sentences[0]! - 2 + sentences[1]!);
    assert.ok(Math.abs(share - depth / 100) < 0.2, `${share} at ${depth} %`);
    // One more sentence would not fit: the longest has 35 tokens here.
    const numTokens = plan.texts[i]!.tokens.length;
    assert.ok(numTokens <= length && numTokens > length - 40, `${numTokens} of ${length}`);
  }
  // All of a document is seen, and exactly the key is scored.
  for (const { text, start, length, scoreFrom } of windowsOf(plan)) {
    const { tokens } = plan.texts[text]!;
    assert.deepEqual([start, length], [0, tokens.length]);
    assert.match(decode(tokenizer, tokens.subarray(scoreFrom)), /^ ?\d{5}$/);
  }
  // The same seed asks the same, another one something else.
  const sha = async (options: object) =>
    (await planOf({ ...asked, ...options })).plan.conditions.dataSha256;
  assert.equal(await sha({}), plan.conditions.dataSha256);
  assert.notEqual(await sha({ seed: 1 }), plan.conditions.dataSha256);
  await assert.rejects(planOf({ lengths: [20] }), /passkey needs lengths of at least \d+ tokens/);
  await assert.rejects(planOf({ lengths: [512] }), /a context of 512 tokens does not fit/);
});

/** What follows the first tokens of a document, each the likeliest one. */
async function greedy(
  model: Awaited<ReturnType<typeof openModel>>,
  start: ArrayLike<number>,
  count: number,
) {
  const ids = Array.from(start);
  for (let i = 0; i < count; i++) {
    const graph = buildForward(model, { batchSize: 1, context: ids.length });
    const program = await engine.compile({ logits: logitsOf(graph) }, boundWeights(model));
    const { logits } = await program.run({ ids: BigInt64Array.from(ids, BigInt) });
    await program.dispose();
    const last = logits!.subarray(-logits!.length / ids.length);
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(start.length);
}

test("right is what greedy generation writes", async () => {
  const { opened, plan } = await planOf({ lengths: [128, 192], depths: [0, 100], trials: 2 });
  const isRight: string[] = [];
  // Of every other document the answer becomes what the model writes: it cannot read keys.
  const texts: EvaluationPlan["texts"][number][] = [...plan.texts];
  for (const { text, scoreFrom, length } of windowsOf(plan)) {
    const tokens = plan.texts[text]!.tokens.subarray();
    const written = await greedy(opened, tokens.subarray(0, scoreFrom), length - scoreFrom);
    if (text % 2 === 0) {
      const answered = Uint16Array.from([...tokens.subarray(0, scoreFrom), ...written]);
      texts[text] = { ...plan.texts[text]!, tokens: answered };
    }
    const asked = [...texts[text]!.tokens].slice(scoreFrom);
    isRight.push(String(+(String(asked) === String(written))));
  }
  const { result } = await evaluatePlan(engine, opened, { ...plan, texts }, { batchSize: 2 });
  assert.equal(result.outcomes, isRight.join(""));
  assert.equal(result.accuracy, isRight.filter((is) => is === "1").length / 8);
  assert.ok(result.accuracy >= 0.5);
  const cell = (i: number) => (Number(isRight[2 * i]) + Number(isRight[2 * i + 1])) / 2;
  const expected: PasskeyResult["cells"] = [
    { length: 128, depth: 0, accuracy: cell(0), trials: 2 },
    { length: 128, depth: 100, accuracy: cell(1), trials: 2 },
    { length: 192, depth: 0, accuracy: cell(2), trials: 2 },
    { length: 192, depth: 100, accuracy: cell(3), trials: 2 },
  ];
  assert.deepEqual(result.cells, expected);
});

const stories = sharedData("stories260k");
test("lengths by default are those that fit", { skip: skipWithout(stories) }, async () => {
  const plan = await passkey.plan(await openModel(stories), noData, {});
  assert.deepEqual(plan.conditions.context, 512);
  assert.ok(plan.texts.every(({ tokens }) => tokens.length <= 512));
  const limited = await passkey.plan(await openModel(stories), noData, { windows: 20 });
  assert.equal(limited.texts.length % 5, 0);
  assert.ok(limited.texts.length <= 20);
});
