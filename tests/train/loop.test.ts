// The loop's decisions, on a program of one number: what is called when, and that any interruption changes nothing.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../src/core/errors.ts";
import type { Batch } from "../../src/data/windows.ts";
import type { TrainedTensor } from "../../src/train/adamw.ts";
import { openHost } from "../../src/train/host.ts";
import {
  INITIAL_STATE,
  type LoopCallbacks,
  type LoopOptions,
  type LoopState,
  trainLoop,
} from "../../src/train/loop.ts";
import { LossScale, type TrainingStep } from "../../src/train/step.ts";
import { allClose } from "../helpers.ts";

const defaults: LoopOptions = {
  steps: 7,
  schedule: "constant",
  warmupSteps: 0,
  learningRate: 0.1,
  baseLearningRate: 0.001,
  loraLearningRate: 1e-3,
  minLearningRate: 0,
  gradientAccumulationSteps: 1,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  maxGradNorm: 1,
  evalEvery: 2,
  saveEvery: 3,
  earlyStopping: "off",
};

/** One trained number x; a batch of n targets has the loss n · (x - id)², so its mean pulls x towards the ids. */
const program: TrainingStep = {
  run: ({ ids, numTargets }: Batch, { x }) => {
    const distance = x![0]! - ids[0]!;
    const gradients = new Map([["x", Float32Array.of(2 * numTargets * distance)]]);
    return Promise.resolve({ nats: numTargets * distance ** 2, numTokens: numTargets, gradients });
  },
  lanes: 1,
  dispose: () => Promise.resolve(),
};

const batchOf = (id: number, numTargets = 3): Batch => {
  return { ids: Int32Array.of(id), labels: Int32Array.of(0), numTargets };
};

const number = (value = 0): TrainedTensor => ({
  name: "x",
  shape: [1],
  values: Float32Array.of(value),
  mean: new Float32Array(1),
  square: new Float32Array(1),
  weightDecay: 0,
  rate: "learningRate",
});

/** A run that keeps what it saved; `stop` may end it, `losses` are what evaluations give. */
function run(
  x: TrainedTensor,
  options: Partial<LoopOptions> = {},
  more: Partial<LoopCallbacks> = {},
  on: TrainingStep = program,
) {
  const calls: string[] = [];
  let saved: { state: LoopState; tensor: TrainedTensor; drawn: number } | undefined;
  let drawn = 0;
  const start = (state: LoopState, from = 0) => {
    drawn = from;
    return trainLoop(
      on,
      [x],
      openHost([x]),
      { ...defaults, ...options },
      {
        nextBatch: () => batchOf(++drawn % 5),
        onStep: ({ step, lossNats }) => void calls.push(`step ${step}: ${lossNats}`),
        evaluate: (step) => {
          calls.push(`evaluate ${step}`);
          return Promise.resolve((x.values[0]! - 2) ** 2);
        },
        save: (state) => {
          calls.push(`save ${state.step}`);
          saved = { state, tensor: structuredClone(x), drawn };
          return Promise.resolve();
        },
        shouldStop: () => false,
        ...more,
      },
      state,
    );
  };
  return { start, calls, saved: () => saved };
}

test("it evaluates and saves at step 0, every so many steps, and at the end", async () => {
  const { start, calls } = run(number());
  const { outcome, state } = await start(INITIAL_STATE);
  assert.equal(outcome, "finished");
  assert.deepEqual([state.step, state.evaluatedStep], [7, 7]);
  const steps = calls.map((call) => call.replace(/:.*/, "")).join(", ");
  assert.equal(
    steps,
    "evaluate 0, save 0, step 1, step 2, evaluate 2, step 3, save 3, step 4, evaluate 4, step 5, " +
      "step 6, evaluate 6, save 6, step 7, evaluate 7, save 7",
  );
});

test("stopped at any moments and resumed, it does what it would have done", async () => {
  const whole = number();
  const reference = run(whole);
  await reference.start(INITIAL_STATE);
  const withoutSaves = (calls: readonly string[]) =>
    calls.filter((call) => !call.startsWith("save"));
  await fc.assert(
    fc.asyncProperty(fc.infiniteStream(fc.integer({ min: 0, max: 6 })), async (patience) => {
      const calls: string[] = [];
      let x = number();
      let state = INITIAL_STATE;
      let drawn = 0;
      for (let isDone = false; !isDone;) {
        // So many questions later, asked between steps or inside an evaluation, it stops.
        let left = patience.next().value!;
        const attempt: ReturnType<typeof run> = run(
          x,
          {},
          {
            shouldStop: () => left-- === 0,
            evaluate: (step) => {
              if (left-- === 0) return Promise.resolve(null);
              attempt.calls.push(`evaluate ${step}`);
              return Promise.resolve((x.values[0]! - 2) ** 2);
            },
          },
        );
        isDone = (await attempt.start(state, drawn)).outcome === "finished";
        calls.push(...attempt.calls);
        const saved = attempt.saved();
        if (saved) ({ state, drawn, tensor: x } = saved);
        else x = structuredClone(x);
      }
      assert.deepEqual(withoutSaves(calls), withoutSaves(reference.calls));
      assert.deepEqual([x.values, x.mean, x.square], [whole.values, whole.mean, whole.square]);
    }),
    { numRuns: 100 },
  );
});

test("early stopping: after so many evaluations without improvement, the best one saved", async () => {
  const losses = [5, 4, 3, 3.5, 3.2, 1];
  let at = 0;
  const { start, calls } = run(
    number(),
    { earlyStopping: { patience: 2 }, steps: 100, saveEvery: 50 },
    {
      evaluate: () => Promise.resolve(losses[at++]!),
    },
  );
  const { outcome, state } = await start(INITIAL_STATE);
  assert.equal(outcome, "stopped early");
  assert.deepEqual([state.step, state.bestStep, state.bestLossNats], [8, 4, 3]);
  const saves = calls.filter((call) => call.startsWith("save"));
  assert.deepEqual(saves, ["save 0", "save 2", "save 4", "save 8"]);
});

test("micro batches are weighted by their targets", async () => {
  const sizes = [5, 1, 2];
  const steps = { steps: 1, maxGradNorm: 1e9 };
  let at = 0;
  const metrics: number[] = [];
  const { start } = run(
    number(1),
    { ...steps, gradientAccumulationSteps: 3 },
    {
      nextBatch: () => batchOf(at, sizes[at++]),
      onStep: ({ lossNats, gradNorm, numTokens }) =>
        void metrics.push(lossNats, gradNorm, numTokens),
    },
  );
  await start(INITIAL_STATE);
  // Distances 1, 0, -1 with 5, 1 and 2 targets: losses 5 + 0 + 2, gradients 2 (5 + 0 - 2), over 8 targets.
  allClose(metrics, [7 / 8, 6 / 8, 8], { rtol: 1e-7 });
});

test("a loss or a gradient that is not finite stops the run, unsaved, with the step and the way back", async () => {
  const broken = (at: number, result: { nats: number; gradient: number }): TrainingStep => ({
    ...program,
    run: (batch, values) => {
      if (batch.ids[0] !== at) return program.run(batch, values);
      const gradients = new Map([["x", Float32Array.of(result.gradient)]]);
      return Promise.resolve({ nats: result.nats, numTokens: 3, gradients });
    },
  });
  const failing = async (on: TrainingStep, more: Partial<LoopCallbacks> = {}) => {
    let drawn = 0;
    const nextBatch = () => batchOf(++drawn);
    const options = { gradientAccumulationSteps: 2 };
    const { start, calls } = run(number(), options, { nextBatch, ...more }, on);
    let message = "";
    await assert.rejects(start(INITIAL_STATE), (error) => {
      assert.ok(error instanceof UserError && error.exitCode === 1);
      // Half precision overflows before a rate does.
      assert.match(error.hint!, on.lossScale ? /--precision fp32/ : /lower learningRate/);
      message = error.message;
      return true;
    });
    return { message, saves: calls.filter((call) => call.startsWith("save")).join(", ") };
  };
  assert.deepEqual(await failing(broken(8, { nats: Number.NaN, gradient: 0 })), {
    message: "step 4: loss of micro batch 2 is NaN; last good checkpoint: that of step 3",
    saves: "save 0, save 3",
  });
  assert.deepEqual(await failing(broken(7, { nats: 1, gradient: Infinity })), {
    message:
      "step 4: norm of the whole batch's gradient is Infinity; last good checkpoint: that of step 3",
    saves: "save 0, save 3",
  });
  const half = { ...broken(2, { nats: 1, gradient: Infinity }), lossScale: new LossScale() };
  assert.match((await failing(half)).message, /^step 1: norm of the whole batch's gradient/);
  const evaluate = (step: number) => Promise.resolve(step < 2 ? 1 : Number.NaN);
  assert.deepEqual(await failing(program, { evaluate }), {
    message: "step 2: held-out loss is NaN; last good checkpoint: that of step 0",
    saves: "save 0",
  });
});

test("weights that overflow are not saved", async () => {
  const { start, calls } = run(number(), { learningRate: 1e39, saveEvery: 1 });
  await assert.rejects(
    start(INITIAL_STATE),
    /^UserError: step 1: x holds values that are not finite/,
  );
  assert.deepEqual(
    calls.filter((call) => call.startsWith("save")),
    ["save 0"],
  );
});
