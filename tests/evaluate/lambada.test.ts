// LAMBADA against an independent computation: every document's log-likelihood in double precision from full logits.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import { decode as decodeWith, encode as encodeWith } from "../data/tiny-tokenizers.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { openEngine } from "../../src/engines/index.ts";
import { evaluatePlan } from "../../src/evaluate/evaluation.ts";
import { lambada } from "../../src/evaluate/tasks/lambada.ts";
import { boundWeights, buildForward, logitsOf } from "../../src/model/graph.ts";
import { openModel } from "../../src/model/open.ts";
import { allClose, sharedData, skipWithout, temporaryFolder } from "../helpers.ts";

const engine = await openEngine("cpu", { threads: 2 });
after(() => engine.dispose());
const tinyGpt2 = join(import.meta.dirname, "../../checkpoints/tiny-gpt2");

async function splitOf(folder: string, documents: readonly string[]) {
  const path = join(folder, "documents.jsonl");
  await writeFile(path, documents.map((text) => JSON.stringify({ text })).join("\n"));
  return selectSplit(await findDataFiles(path), "evaluation");
}

/** One model run a document, the log-softmax and the argmax in plain loops over its logits. */
async function reference(folder: string, encoded: readonly { ids: number[]; target: number }[]) {
  const opened = await openModel(folder);
  const found = [];
  for (const { ids, target } of encoded) {
    const graph = buildForward(opened, { batchSize: 1, context: ids.length });
    const program = await engine.compile({ logits: logitsOf(graph) }, boundWeights(opened));
    const { logits } = await program.run({ ids: BigInt64Array.from(ids, BigInt) });
    await program.dispose();
    const vocabSize = logits!.length / ids.length;
    let [logLikelihood, isGreedy] = [0, true];
    for (let at = target; at < ids.length; at++) {
      const row = logits!.subarray((at - 1) * vocabSize, at * vocabSize);
      const sum = row.reduce((total, logit) => total + Math.exp(logit), 0);
      logLikelihood += row[ids[at]!]! - Math.log(sum);
      isGreedy &&= row.indexOf(Math.max(...row)) === ids[at];
    }
    found.push({ logLikelihood, isGreedy });
  }
  return found;
}

async function agree(t: test.TestContext, model: string, documents: readonly string[]) {
  const tokenizer = await loadTokenizer(model);
  const encode = (text: string) => [...tokenizer.prefix, ...encodeWith(tokenizer, text)];
  const encoded = documents.map((text) => {
    const words = text.split(" ");
    return { ids: encode(text), target: encode(words.slice(0, -1).join(" ")).length };
  });
  const expected = await reference(model, encoded);
  const opened = await openModel(model);
  const plan = await lambada.plan(opened, await splitOf(await temporaryFolder(t), documents), {});
  const { result, losses } = await evaluatePlan(engine, opened, plan, { batchSize: 3 });
  const order = plan.groups.flatMap(({ windows }) => windows.map(({ text }) => text));
  const inOrder = order.map((document) => expected[document]!);
  allClose(
    losses.map(({ nats }) => nats),
    inOrder.map(({ logLikelihood }) => -logLikelihood),
    { rtol: 1e-5, atol: 1e-5 },
  );
  const isRight = losses.map(({ isArgmax }) => !isArgmax!.includes(0));
  assert.deepEqual(
    isRight,
    inOrder.map(({ isGreedy }) => isGreedy),
  );
  const n = documents.length;
  const right = expected.filter(({ isGreedy }) => isGreedy).length;
  const mean = expected.reduce((sum, { logLikelihood }) => sum + logLikelihood, 0) / n;
  const squares = expected.reduce((sum, e) => sum + (e.logLikelihood - mean) ** 2, 0);
  const { accuracy, accuracyStandardError, perplexity, perplexityStandardError } = result;
  allClose([accuracy], [right / n], { atol: 1e-12 });
  const share = right / n;
  allClose([accuracyStandardError!], [Math.sqrt((share * (1 - share)) / (n - 1))], { atol: 1e-12 });
  allClose([perplexity], [Math.exp(-mean)], { rtol: 1e-5 });
  const error = Math.exp(-mean) * Math.sqrt(squares / (n - 1) / n);
  allClose([perplexityStandardError!], [error], { rtol: 1e-4 });
  assert.equal(result.numDocuments, n);
  return { isRight, tokens: losses.map(({ numTokens }) => numTokens) };
}

const stories = sharedData("stories260k");
test("stories260k, sentence by sentence", { skip: skipWithout(stories) }, async (t) => {
  const text = await readFile(sharedData("tinystories", "five-stories.txt"), "utf8");
  const sentences = text.replaceAll("<|endoftext|>", "").split(/(?<=\.)\s+/);
  // Up to four sentences each, and without the full stop, as LAMBADA's passages are.
  const documents = sentences
    .map((_, i) => sentences.slice(Math.max(0, i - (i % 4)), i + 1).join(" "))
    .map((document) => document.trim().replace(/\.$/, ""))
    .filter((document) => document.includes(" "));
  const { isRight, tokens } = await agree(t, stories, documents);
  // Neither all right nor all wrong, and targets of one token and of several.
  assert.ok(isRight.includes(true) && isRight.includes(false));
  assert.ok(Math.min(...tokens) === 1 && Math.max(...tokens) > 2);
});

test("the embedded model, documents of several lengths", { skip: skipWithout(tinyGpt2) }, (t) =>
  agree(t, tinyGpt2, [
    "the United States",
    "the people of the United States",
    "I am",
    `${"the Congress of the United States and ".repeat(6)}the people`,
    "no sailor was on the deck at antidisestablishmentarianism",
  ]).then(() => undefined),
);

test("figures from scores by hand: per document, not per token", async (t) => {
  const opened = await openModel(tinyGpt2);
  const split = await splitOf(await temporaryFolder(t), ["a b", "c d", "e f", "g h"]);
  const { resultOf } = await lambada.plan(opened, split, {});
  const score = (nats: number, ...isArgmax: readonly number[]) => {
    const numTokens = isArgmax.length;
    return { nats, numTokens, tokenNats: new Float32Array(), isArgmax: Uint8Array.from(isArgmax) };
  };
  const scores = [score(1, 1), score(2, 1, 0), score(3, 1, 1, 1), score(6, 0)];
  const result = resultOf(scores, "ff");
  // Means of 1, 0, 1, 0 and of 1, 2, 3, 6 (variance 14 / 3), over 4 documents whatever their tokens.
  assert.equal(result.accuracy, 0.5);
  allClose([result.accuracyStandardError!], [Math.sqrt(1 / 3) / 2], { rtol: 1e-12 });
  allClose([result.perplexity], [Math.exp(3)], { rtol: 1e-12 });
  const error = Math.exp(3) * Math.sqrt(14 / 3 / 4);
  allClose([result.perplexityStandardError!], [error], { rtol: 1e-12 });
  assert.deepEqual([result.task, result.numDocuments, result.modelSha256], ["lambada", 4, "ff"]);
});

test("what a document's tokens and target are", async (t) => {
  const opened = await openModel(tinyGpt2);
  const tokenizer = await loadTokenizer(tinyGpt2);
  const encode = (text: string) => encodeWith(tokenizer, text);
  const decode = (ids: Iterable<number>) => decodeWith(tokenizer, ids);
  const folder = await temporaryFolder(t);
  const planned = async (documents: readonly string[], options = {}) => {
    const { texts, groups } = await lambada.plan(opened, await splitOf(folder, documents), options);
    return groups
      .flatMap(({ windows }) => windows)
      .map(({ text, start, length, scoreFrom }) => {
        const tokens = texts[text]!.tokens.subarray(start, start + length);
        return [tokens.subarray(0, scoreFrom), tokens.subarray(scoreFrom)] as const;
      });
  };
  const words = async (document: string, options = {}) =>
    (await planned([document], options))[0]!.map((tokens) => decode(tokens));
  assert.deepEqual(await words("he said yes"), ["he said", " yes"]);
  assert.deepEqual(await words("he said  yes"), ["he said", "  yes"]); // all spaces are the target's
  assert.deepEqual(await words("he said\nno yes."), ["he said\nno", " yes."]);
  for (const document of ["alone", " alone"])
    await assert.rejects(
      words(document),
      /document 1 has 0 tokens before its last word and \d+ in it/,
    );
  // Cut from the left: 4 tokens are seen and the fifth is predicted.
  const text = "the people of the United States and the people";
  const ids = [...encode(text)];
  const [cut] = await planned([text], { context: 4 });
  assert.deepEqual([...cut![0], ...cut![1]], ids.slice(-5));
  await assert.rejects(words("such antidisestablishmentarianism", { context: 2 }), {
    name: "UserError",
    message:
      /document 1 has \d+ tokens before its last word and \d+ in it, expected at least 1 and 1 to 2/,
  });
  await assert.rejects(planned(["a b"], { stride: 2 }), /lambada scores whole documents/);
  // A subset is even; similar lengths run together, with all the room that they need.
  const many = Array.from({ length: 40 }, (_, i) => `${"the ".repeat(3 * i + 1)}end`);
  assert.equal((await planned(many, { windows: 7 })).length, 7);
  const split = await splitOf(folder, many);
  const { groups } = await lambada.plan(opened, split, { mayPack: false });
  assert.equal(groups.length, 4);
  let shortest = 0;
  for (const { context, windows } of groups) {
    const lengths = windows.map(({ length }) => length);
    assert.equal(windows.length, 10);
    assert.equal(Math.max(...lengths), context + 1);
    assert.ok(Math.min(...lengths) >= shortest);
    shortest = context + 1;
  }
  // Short ones share rows, where that saves most of them.
  const [packed, ...others] = (await lambada.plan(opened, split, {})).groups;
  assert.deepEqual([packed!.isPacked, packed!.windows.length, others], [true, 40, []]);
  assert.equal(packed!.context, opened.model.config.maxPositions);
});
