// The choice of what is recomputed, from the memory that there is.

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { UserError } from "../../src/core/errors.ts";
import { targets } from "../../src/engines/onnx/lowering.ts";
import { estimate, roomOf } from "../../src/engines/onnxruntime/estimate.ts";
import type { Outputs } from "../../src/graph/tensor.ts";
import { topologicalOrder } from "../../src/graph/tensor.ts";
import { placesOf } from "../../src/model/places.ts";
import { recipeSchema } from "../../src/options/schema.ts";
import { fitRun, planRun } from "../../src/run/fit.ts";
import { graphsOf } from "../../src/run/work.ts";
import { prepareRun } from "../../src/run/prepare.ts";
import { temporaryFolder } from "../helpers.ts";
import { smallRecipe, writeTokens } from "./small-run.ts";

const tiny = fileURLToPath(new URL("../../checkpoints/tiny-gpt2", import.meta.url));

/** What an engine of ONNX Runtime says of itself, as if it mapped weights or not. */
const engineOf = (provider: keyof typeof targets, mapsWeights: boolean) => ({
  mapsWeights,
  lanes: 1,
  precisions: ["fp32"] as const,
  tiling: targets[provider].tiling,
  room: roomOf(provider),
  estimate: (outputs: Outputs) => estimate(outputs, provider),
});

async function prepareTiny(t: TestContext, shape: object) {
  const data = await writeTokens(await temporaryFolder(t));
  const recipe = recipeSchema.parse({ base: tiny, data, ...smallRecipe, ...shape });
  return prepareRun(recipe, placesOf({}));
}

/** The tiny model's run with this shape. */
async function prepared(t: TestContext, shape: object) {
  const run = await prepareTiny(t, shape);
  return (recompute: "auto" | boolean, freeBytes: number, mapsWeights: boolean) =>
    fitRun(
      { ...run, recipe: { ...run.recipe, recompute } },
      {
        programBytes: 0,
        freeBytes,
        engine: engineOf("cpu", mapsWeights),
      },
    );
}

// Large enough for activations to outweigh what a longer graph costs.
const large = { context: 256, batchSize: 128 };

test("auto recomputes blocks only where it must; what cannot fit is refused by part", async (t) => {
  const run = await prepareTiny(t, large);
  const fitRunOn = await prepared(t, large);
  const fit = (recompute: "auto" | boolean, freeBytes: number) =>
    fitRunOn(recompute, freeBytes, false);
  const roomy = fit("auto", 1e12);
  assert.equal(roomy.recompute, "cheap");
  const most = roomy.totalBytes;
  const least = fit(true, 1e12).totalBytes;
  assert.ok(least < most, `${least} of ${most}`);
  assert.equal(fit("auto", most).recompute, "cheap");
  assert.equal(fit("auto", most - 1).recompute, "blocks");
  assert.throws(
    () => fit("auto", least - 1),
    /needs about .*: the program .* weights .* a training step/,
  );
  assert.throws(
    () => fit(false, most - 1),
    (error: UserError) => {
      assert.match(error.hint!, /^--recompute takes \d+ MB; /); // and fits
      // The factors that widening its few weights takes are more than it saves.
      assert.doesNotMatch(error.hint!, /--quantize/);
      assert.match(error.hint!, /; --recompute --context 128 takes \d+ MB; or lower/);
      return true;
    },
  );
  // A limit of the recipe's counts instead of what is free.
  const limited = { ...run, recipe: { ...run.recipe, maxMemory: (most - 1) / 1e9 } };
  const machine = { programBytes: 0, freeBytes: 1e12, engine: engineOf("cpu", false) };
  assert.equal(fitRun(limited, machine).recompute, "blocks");
});

test("training and scoring take turns where an engine maps its weights and much is saved", async (t) => {
  const fit = await prepared(t, large);
  const [together, byTurns] = [fit("auto", 1e12, false), fit("auto", 1e12, true)];
  assert.deepEqual([together.takesTurns, byTurns.takesTurns], [false, true]);
  assert.equal(byTurns.totalBytes, together.totalBytes - together.memoryBytes.scoring);
  const small = await prepared(t, {});
  assert.equal(small("auto", 1e12, true).takesTurns, false);
  assert.throws(
    () => small("auto", 1e3, true),
    ({ hint }: UserError) => !hint!.includes("lower --batch-size"),
  );
});

test("a run on a card is planned by the card's graph, whose values lie there", async (t) => {
  const run = await prepareTiny(t, large);
  const fit = (provider: keyof typeof targets) =>
    fitRun(run, { programBytes: 0, freeBytes: 1e12, engine: engineOf(provider, false) });
  const numNodes = (provider: keyof typeof targets) => {
    const { training } = graphsOf(run, targets[provider], fit(provider));
    return topologicalOrder(Object.values(training)).length;
  };
  assert.ok(numNodes("cuda") < numNodes("cpu"));
  const [cpu, cuda] = [fit("cpu"), fit("cuda")];
  assert.equal(cpu.deviceBytes, 0);
  assert.ok(cuda.deviceBytes > roomOf("cuda").device);
  assert.ok(cuda.memoryBytes.training < cpu.memoryBytes.training / 2);
});

test("a precision that the device lacks is refused before anything is planned", async (t) => {
  const run = await prepareTiny(t, { device: "cpu", precision: "bf16" });
  await assert.rejects(planRun(run), /does not compute in bf16/);
});
