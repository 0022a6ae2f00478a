// The method on a real model and real text: the drop that a plain PyTorch loop of the same settings finds.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { openEngine } from "../../src/engines/index.ts";
import { allClose, sharedData, skipWithout, temporaryFolder } from "../helpers.ts";
import { smallRun } from "./small-run.ts";

const data = sharedData("wikitext-2");

test(
  "temperatures alone more than halve a story teller's perplexity on WikiText-2",
  { skip: skipWithout(data) },
  async (t) => {
    const engine = await openEngine("cpu", { threads: 0 });
    t.after(() => engine.dispose());
    const recipe = {
      context: 256,
      steps: 200,
      batchSize: 4,
      gradientAccumulationSteps: 1,
      learningRate: 0.01,
      warmupSteps: 20,
      maxAddedShare: 0.005,
      evalEvery: 200,
      evalWindows: 8,
      saveEvery: 200,
    };
    const folder = join(await temporaryFolder(t), "run");
    const result = await smallRun({
      engine,
      folder,
      data,
      model: sharedData("stories260k"),
      recipe,
    });
    assert.ok(result.outcome === "finished");
    const { before, after, delta, parameters } = result.report;
    assert.equal(parameters.added, 580);
    assert.equal(before.numTokens, after.numTokens);
    // PyTorch: 144.6 to 63.8, on windows cut a little otherwise.
    allClose([before.perplexity, after.perplexity], [144, 63.8], { rtol: 0.02 });
    assert.ok(delta.interval95![1] < -45, String(delta.interval95));
  },
);
