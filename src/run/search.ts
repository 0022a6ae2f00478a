// The learning rate of an arm by a short sweep, scored on an end of the training text: what arms are compared on is never
// seen. Each point is a run; what it gave is kept, so that a sweep that was stopped goes on.

import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { NotFiniteError, UserError } from "../core/errors.ts";
import type { RateSearch, SearchPoint } from "../evaluate/comparison.ts";
import { readJsonIfSound, writeJson } from "../files/json.ts";
import type { Comparison } from "../options/comparison.ts";
import { partedByPlace, type Recipe } from "../options/schema.ts";
import { rateNames } from "../train/groups.ts";

/** Half decades from the recipe's own rate, in the order in which they are tried, and how far a best one at an end leads. */
export const GRID = [0, -1, 1, -2, 2];
const FURTHEST = 4;
/** Of its own, so that no run that is compared had its rate chosen on itself. */
const SEED = 20_000;
/** Of the training text, from its end; windows that are scored of it at most; and steps at least. */
export const HELD_IN = 0.05;
const MOST_WINDOWS = 64;
const LEAST_STEPS = 50;

/**
 * Finds the rates of an arm, by half decades around the recipe's: the lowest loss after a quarter of the steps. `train`
 * trains a point and gives its loss; without it, all must have been found before.
 */
export async function searchRate(
  { name, recipe }: Comparison["arms"][number],
  { folder, part = "" }: { readonly folder: string; readonly part?: string },
  train?: (point: Recipe, number: number) => Promise<number>,
): Promise<RateSearch> {
  const path = join(folder, `${name}.json`);
  // What may differ: how long it trains, and where.
  const basis = { ...partedByPlace(recipe).others, steps: 0, warmupSteps: 0 };
  const of = createHash("sha256").update(JSON.stringify(basis)).digest("hex");
  for (;;) {
    // Read each time: other shards may look for the same.
    const stored = await readJsonIfSound(path);
    if (stored && stored["of"] !== of)
      throw new UserError(`${path} is of a search with another recipe`, {
        hint: "remove it and this arm's runs to search anew, or bring the recipe back",
      });
    const points = (stored?.["points"] ?? []) as readonly SearchPoint[];
    const sweep = sweepOf(recipe, stored?.["steps"] as number | undefined);
    const { steps, seed } = sweep;
    const halfDecades = nextOf(points);
    const chosen = bestOf(points);
    if (halfDecades === undefined && chosen) return { chosen, steps, seed, points };
    if (halfDecades === undefined)
      throw new UserError("no learning rate of the search gave a finite loss", { exitCode: 1 });
    if (!train)
      throw new UserError(`${path}: the search of a learning rate is missing or not finished`, {
        hint: "run the same command without --collect",
        exitCode: 1,
      });
    const rates = ratesAt(recipe, halfDecades);
    const rate = rates[rateNames(recipe)[0]!];
    const point = { ...sweep, ...rates, out: join(folder, `${name}-${rate}${part}`) };
    const lossNats = await train(point, points.length + 1).catch((error: unknown) => {
      if (error instanceof NotFiniteError) return null;
      throw error;
    });
    await writeJson(path, { of, steps, points: [...points, { halfDecades, rate, lossNats }] });
    await rm(point.out, { recursive: true, force: true });
  }
}

const RATES = ["learningRate", "loraLearningRate", "baseLearningRate", "minLearningRate"] as const;

/** All learning rates of a recipe, so many half decades from where they are. */
export function ratesAt(recipe: Recipe, halfDecades: number): Pick<Recipe, (typeof RATES)[number]> {
  const at = (rate: number) => Number((rate * 10 ** (halfDecades / 2)).toPrecision(3));
  const rates = RATES.map((key) => [key, halfDecades === 0 ? recipe[key] : at(recipe[key])]);
  return Object.fromEntries(rates) as Pick<Recipe, (typeof RATES)[number]>;
}

/** An arm's recipe as a point of the sweep trains it. */
function sweepOf(
  recipe: Recipe,
  steps = Math.min(recipe.steps, Math.max(LEAST_STEPS, Math.ceil(recipe.steps / 4))),
): Recipe {
  const { reportWindows: all } = recipe;
  const reportWindows = all === "all" ? MOST_WINDOWS : Math.min(all, MOST_WINDOWS);
  const warmupSteps = Math.ceil((recipe.warmupSteps * steps) / recipe.steps);
  const scored = { evalEvery: steps, reportWindows, evalWindows: reportWindows, tasks: null };
  const trained = { seed: SEED, steps, warmupSteps, earlyStopping: "off", keepLast: 1 } as const;
  return { ...recipe, ...trained, ...scored };
}

/** The lowest loss; of equals the lower rate. */
function bestOf(points: readonly SearchPoint[]): SearchPoint | undefined {
  const finite = points.filter(({ lossNats }) => lossNats !== null);
  return finite.toSorted((a, b) => a.lossNats! - b.lossNats! || a.halfDecades - b.halfDecades)[0];
}

/** The grid first, then on from an end that is the best. */
function nextOf(points: readonly SearchPoint[]): number | undefined {
  const tried = points.map(({ halfDecades }) => halfDecades);
  const next = GRID.find((halfDecades) => !tried.includes(halfDecades));
  const best = bestOf(points)?.halfDecades;
  if (next !== undefined || best === undefined || Math.abs(best) >= FURTHEST) return next;
  if (best === Math.min(...tried)) return best - 1;
  return best === Math.max(...tried) ? best + 1 : undefined;
}
