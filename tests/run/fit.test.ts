// The choice of what is recomputed, from the memory that there is.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { findDataFiles, selectSplit } from "../../src/data/data-files.ts";
import { recipeSchema } from "../../src/recipe/schema.ts";
import { fitRun, totalBytes } from "../../src/run/fit.ts";
import { prepareRun } from "../../src/run/prepare.ts";
import { temporaryFolder } from "../helpers.ts";
import { smallRecipe, writeTokens } from "./small-run.ts";

const tiny = fileURLToPath(new URL("../../checkpoints/tiny-gpt2", import.meta.url));

test("auto recomputes blocks only where it must; what cannot fit is refused by part", async (t) => {
  const data = await writeTokens(await temporaryFolder(t));
  const files = await findDataFiles(data);
  const splits = {
    train: selectSplit(files, "train"),
    evaluation: selectSplit(files, "validation"),
  };
  // Large enough for activations to outweigh what a longer graph costs.
  const shape = { context: 256, batchSize: 16 };
  const recipe = recipeSchema.parse({ base: tiny, data, ...smallRecipe, ...shape });
  const prepared = await prepareRun(recipe, tiny, splits, {});
  const fit = (recompute: "auto" | boolean, freeBytes: number) =>
    fitRun({ ...recipe, recompute }, prepared, { programBytes: 0, freeBytes });

  const roomy = fit("auto", 1e12);
  assert.equal(roomy.recompute, "cheap");
  const most = totalBytes(roomy.memoryBytes);
  const least = totalBytes(fit(true, 1e12).memoryBytes);
  assert.ok(least < most, `${least} of ${most}`);
  assert.equal(fit("auto", most).recompute, "cheap");
  assert.equal(fit("auto", most - 1).recompute, "blocks");
  assert.throws(() => fit("auto", least - 1), /needs about .* weights .* activations/);
  assert.throws(() => fit(false, most - 1), { hint: "--recompute makes it fit" });
});
