// The choice of what is recomputed, from the memory that there is.

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { findDataFiles, selectSplit } from "../../src/data/readers/data-files.ts";
import { recipeSchema } from "../../src/options/schema.ts";
import { fitRun } from "../../src/run/fit.ts";
import { openBase, prepareRun } from "../../src/run/prepare.ts";
import { temporaryFolder } from "../helpers.ts";
import { smallRecipe, writeTokens } from "./small-run.ts";

const tiny = fileURLToPath(new URL("../../checkpoints/tiny-gpt2", import.meta.url));

/** The tiny model's run with this shape. */
async function prepared(t: TestContext, shape: object) {
  const data = await writeTokens(await temporaryFolder(t));
  const files = await findDataFiles(data);
  const splits = {
    train: selectSplit(files, "train"),
    evaluation: selectSplit(files, "validation"),
  };
  const recipe = recipeSchema.parse({ base: tiny, data, ...smallRecipe, ...shape });
  const run = await prepareRun(recipe, await openBase(recipe), splits, {});
  return (recompute: "auto" | boolean, freeBytes: number, mapsWeights: boolean) =>
    fitRun({ ...recipe, recompute }, run, { programBytes: 0, freeBytes, mapsWeights });
}

// Large enough for activations to outweigh what a longer graph costs.
const large = { context: 256, batchSize: 128 };

test("auto recomputes blocks only where it must; what cannot fit is refused by part", async (t) => {
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
  assert.throws(() => fit("auto", least - 1), /needs about .* weights .* activations/);
  assert.throws(() => fit(false, most - 1), { hint: "--recompute makes it fit" });
});

test("training and scoring take turns where an engine maps its weights and much is saved", async (t) => {
  const fit = await prepared(t, large);
  const [together, byTurns] = [fit("auto", 1e12, false), fit("auto", 1e12, true)];
  assert.deepEqual([together.takesTurns, byTurns.takesTurns], [false, true]);
  assert.equal(byTurns.totalBytes, together.totalBytes - together.memoryBytes.scoring);
  const small = await prepared(t, {});
  assert.equal(small("auto", 1e12, true).takesTurns, false);
});
