// `precision: auto`: half precision where a device has it and the run's first sequences come out as they do in F32.

import type { Precision } from "../core/dtype.ts";
import { mixedBatches } from "../data/training.ts";
import type { Engine } from "../engines/index.ts";
import { globalNorm } from "../train/adamw.ts";
import { openHost } from "../train/host.ts";
import { sumGradients } from "../train/loop.ts";
import { openTrainingStep } from "../train/step.ts";
import { halfOf } from "./fit.ts";
import type { Prepared } from "./prepare.ts";

/** Most that half precision may change: the loss, of itself; and all gradients together, of their norm. */
const MOST = { loss: 0.01, gradient: 0.15 };
/** Of the first step, one at a time: what fits at all fits so in both number formats. */
const SEQUENCES = 4;

/** Half precision or fp32, and why, in a sentence. */
export async function choosePrecision(run: Prepared, engine: Engine) {
  const half = halfOf(engine);
  if (!half) return { precision: "fp32", why: `${engine.description} has nothing faster` } as const;
  const full = await gradientsOf(run, engine, "fp32");
  const other = await gradientsOf(run, engine, half);
  const loss = Math.abs(other.loss / full.loss - 1);
  const differences = ([name, sum]: readonly [string, Float32Array]) =>
    sum.map((x, i) => x - other.sums.get(name)![i]!);
  const gradient = globalNorm([...full.sums].map(differences)) / globalNorm(full.sums.values());
  const [is, may] = [{ loss, gradient }, MOST].map(
    (of) => `${percent(of.loss)} in the loss and ${percent(of.gradient)} in the gradients`,
  );
  // Not finite is not within.
  const isWithin = loss <= MOST.loss && gradient <= MOST.gradient;
  return {
    precision: isWithin ? half : ("fp32" as const),
    why: `${half} differs from fp32 by ${is} of the first sequences, ${may} are allowed`,
  };
}

const percent = (share: number) => `${Number((100 * share).toPrecision(2))} %`;

async function gradientsOf(run: Prepared, engine: Engine, precision: Precision) {
  const { opened, tensors, shapes, sources, recipe } = run;
  const host = openHost(tensors);
  const { sums } = host;
  const options = { precision, recompute: "blocks" } as const;
  const shape = { ...shapes.training, batchSize: 1 };
  const step = await openTrainingStep(engine, opened, shape, [...sums.keys()], options);
  const batches = mixedBatches(sources, { seed: recipe.seed, epoch: 0, index: 0 });
  const first = Array.from({ length: SEQUENCES }, () => batches.next(1));
  const { nats, numTokens } = await sumGradients(step, tensors, host, first);
  await step.dispose();
  return { loss: nats / numTokens, sums };
}
