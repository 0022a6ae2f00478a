// Learning rates of every schedule against values computed by hand.

import assert from "node:assert/strict";
import { test } from "node:test";
import { learningRateAt, type RateOptions } from "../../src/train/loop.ts";
import { allClose } from "../helpers.ts";

const rates = (options: Omit<RateOptions, "minLearningRate">, minLearningRate = 0) =>
  Array.from({ length: options.steps }, (_, i) =>
    learningRateAt(i + 1, { ...options, minLearningRate }, 1),
  );

test("warm-up rises to the peak, then each schedule takes its course to the minimum at the last step", () => {
  const shape = { steps: 6, warmupSteps: 2 };
  allClose(rates({ schedule: "constant", ...shape }), [0.5, 1, 1, 1, 1, 1]);
  allClose(rates({ schedule: "linear", ...shape }), [0.5, 1, 0.75, 0.5, 0.25, 0], { atol: 1e-15 });
  const quarter = (1 + Math.SQRT1_2) / 2;
  const cosine = [0.5, 1, quarter, 0.5, 1 - quarter, 0];
  allClose(rates({ schedule: "cosine", ...shape }), cosine, { atol: 1e-15 });
  allClose(rates({ schedule: "linear", ...shape }, 0.2), [0.5, 1, 0.8, 0.6, 0.4, 0.2], {
    atol: 1e-15,
  });
});

test("a single step trains at the peak", () => {
  for (const warmupSteps of [0, 1])
    assert.deepEqual(rates({ schedule: "cosine", steps: 1, warmupSteps }), [1]);
});

test("without warm-up the fall begins at once, and a run of nothing else is possible", () => {
  allClose(rates({ schedule: "linear", steps: 4, warmupSteps: 0 }), [0.75, 0.5, 0.25, 0]);
  allClose(rates({ schedule: "cosine", steps: 3, warmupSteps: 3 }), [1 / 3, 2 / 3, 1]);
});

test("a group whose peak lies under the minimum keeps its peak", () => {
  const shape = { steps: 10, warmupSteps: 0, minLearningRate: 1e-3 };
  for (const step of [1, 5, 10])
    assert.equal(learningRateAt(step, { schedule: "cosine", ...shape }, 1e-5), 1e-5);
});
