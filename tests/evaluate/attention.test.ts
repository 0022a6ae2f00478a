// What is seen of attention: the entropy of its rows against its formula, over several blocks of rows, and τ of a text on
// one engine against another.

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { openEngine } from "../../src/engines/index.ts";
import { AttentionStatistics } from "../../src/evaluate/attention.ts";
import { packageRoot } from "../../src/files/package-root.ts";
import * as g from "../../src/graph/build.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { attention } from "../../src/nn/attention.ts";
import { fixedPositions } from "../../src/nn/positions.ts";
import { inspectText } from "../../src/run/inspect.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { readJson, smallRun } from "../run/small-run.ts";
import type { RunDetails } from "../../src/report/data.ts";

const engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

test("entropy and weights are those of the formula, whatever the blocks of rows", async () => {
  for (const length of [300, 100]) await checkFormula(length);
});

async function checkFormula(length: number): Promise<void> {
  const [heads, groups, headDim, scale] = [4, 2, 5, 0.7];
  const random = createRandom(5);
  const fill = (count: number) => Float32Array.from({ length: count }, () => 2 * random.normal());
  const [query, key] = [fill(heads * length * headDim), fill(groups * length * headDim)];
  const statistics = new AttentionStatistics();
  const outputs: Record<string, Tensor> = {};
  const { hooks } = statistics.watch(outputs, true);
  const input = (name: string, heads: number) => g.input(name, [1, heads, length, headDim], "F32");
  const projections = { query: input("query", heads), key: input("key", groups) };
  const hidden = g.input("hidden", [1, length, heads * headDim], "F32"); // nothing reads it
  const options = { scale, hooks, layer: 0, input: hidden, positions: fixedPositions(length) };
  outputs["y"] = attention({ ...projections, value: input("value", groups) }, options);
  const program = await engine.compile(outputs, new Map());
  const results = await program.run({ query, key, value: key });
  // Of a row that is not filled to its end.
  const numTokens = length - 10;
  const window = { text: 0, start: 0, length: numTokens, scoreFrom: 1, numTargets: 1 };
  statistics.add(results, 0, numTokens, window);
  await program.dispose();
  let sum = 0;
  const mean = new Float64Array((numTokens * (numTokens + 1)) / 2);
  for (let head = 0; head < heads; head++)
    for (let t = 0; t < numTokens; t++) {
      const group = Math.floor((head * groups) / heads);
      const logits = Array.from({ length: t + 1 }, (_, s) => {
        let dot = 0;
        for (let h = 0; h < headDim; h++)
          dot +=
            query[(head * length + t) * headDim + h]! * key[(group * length + s) * headDim + h]!;
        return scale * dot;
      });
      const largest = Math.max(...logits);
      const weights = logits.map((logit) => Math.exp(logit - largest));
      const total = weights.reduce((a, b) => a + b);
      for (const [s, weight] of weights.entries()) {
        const p = weight / total;
        mean[(t * (t + 1)) / 2 + s]! += p / heads;
        if (p > 0) sum -= p * Math.log(p);
      }
    }
  allClose(statistics.entropies(), [sum / (heads * numTokens)], { rtol: 1e-5 });
  // Of the first block.
  const shown = Math.min(numTokens, 128);
  allClose(statistics.attention[0]!, mean.slice(0, (shown * (shown + 1)) / 2), { atol: 1e-6 });
}

test("a text's temperatures and entropies are the same on both engines; a run keeps those of a passage", async (t) => {
  const folder = await temporaryFolder(t);
  const data = join(folder, "text");
  await mkdir(data);
  const text = 'The whale was white, and the sea was wide; \n"Aye!" said the mate.\n'.repeat(60);
  await writeFile(join(data, "train.txt"), text);
  await writeFile(join(data, "validation.txt"), text.slice(0, 900));
  const model = join(packageRoot(), "checkpoints/tiny-gpt2");
  const run = join(folder, "run");
  await smallRun({ engine, folder: run, data, model, recipe: { context: 64, learningRate: 0.05 } });
  const final = join(run, "final");
  const {
    passage,
    attention: seen,
    heads,
  } = (await readJson(join(run, "details.json"))) as unknown as RunDetails;
  assert.equal(passage!.tokens.join(""), text.slice(0, passage!.tokens.join("").length));
  for (const { layer, projection, taus } of passage!.temperatures) {
    const same = heads.find((of) => of.layer === layer && of.projection === projection)!;
    assert.equal(taus.length, same.mean.length);
    for (const of of taus) assert.equal(of.length, passage!.tokens.length);
  }
  const shown = passage!.tokens.join("");
  const [cpu, tfjs] = [
    await inspectText(final, shown, { device: "cpu" }),
    await inspectText(final, shown, { device: "tfjs" }),
  ];
  assert.ok(
    cpu.tokens.some(({ tau }) => Math.abs(tau.query! - 1) > 0.01),
    "nothing was trained",
  );
  // The same tokens, so the same entropies; every row of bytes adds up to 250, but for their rounding.
  assert.deepEqual(seen!.tokens, passage!.tokens);
  const pairs = cpu.entropy.map(({ before, after }) => [before!, after]);
  allClose(seen!.entropy.flat(), pairs.flat(), { atol: 1e-5 });
  for (const layer of [...seen!.before, ...seen!.after]) {
    const bytes = [...Buffer.from(layer, "base64")];
    for (let t = 0; t < seen!.tokens.length; t++) {
      const row = bytes.slice((t * (t + 1)) / 2, ((t + 1) * (t + 2)) / 2);
      allClose([row.reduce((a, b) => a + b)], [250], { atol: (t + 1) / 2 });
    }
  }
  assert.notDeepEqual(seen!.before, seen!.after);
  const numbers = ({ tokens, entropy }: typeof cpu) => [
    ...tokens.flatMap(({ tau, nats }) => [tau.query!, tau.value!, nats ?? 0]),
    ...entropy.flatMap(({ before, after }) => [before!, after]),
  ];
  allClose(numbers(cpu), numbers(tfjs), { atol: 2e-4 });
  // A head of a layer is what the run kept of it, and the base is the model without temperatures.
  const one = await inspectText(final, shown, { device: "cpu", layer: 1, head: 2 });
  const kept = passage!.temperatures.find((of) => of.layer === 1 && of.projection === "query")!;
  const query = one.tokens.map(({ tau }) => tau.query!);
  allClose(query, kept.taus[2]!, { atol: 2e-3 });
  const base = await inspectText(model, shown, { device: "cpu" });
  assert.deepEqual(base.tokens[3]!.tau, {});
  const before = cpu.entropy.map(({ before }) => before!);
  allClose(
    base.entropy.map(({ after }) => after),
    before,
    { atol: 1e-6 },
  );
  assert.ok(base.entropy.every(({ before }) => before === null));
  await assert.rejects(inspectText(model, shown, { layer: 4 }), /layer 4 is not there: .* 0 to 3/);
  await assert.rejects(inspectText(model, "", {}), /the text has 0 tokens, expected 2 to/);
});
