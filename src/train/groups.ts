// What trains in a run: temperatures, norms, biases or everything, with initial values and the rules of their group.

import type { OpenedModel } from "../model/open.ts";
import { countParameters, hostOf } from "../model/open.ts";
import { createRandom } from "../core/random.ts";
import { UserError } from "../core/errors.ts";
import { fixedShape, sizeOf, type Shape } from "../core/shape.ts";
import { readFloats } from "../files/safetensors.ts";
import type { Recipe } from "../options/schema.ts";
import { temperatureShapes } from "../insertions/temperature-hook.ts";
import { type Projection, PROJECTIONS, type TemperatureSpec } from "../insertions/spec.ts";
import type { TrainedTensor } from "./adamw.ts";

/** A random stream of the seed that no epoch's order of data takes. */
const INITIAL_WEIGHTS = -1;

/** The temperatures that a recipe asks for; undefined where `tune` does not name them. */
export function specOf(recipe: Recipe): TemperatureSpec | undefined {
  if (!recipe.tune.includes("temperatures")) return undefined;
  const { feature, position, temperatures } = recipe;
  return { feature, position, ...temperatures };
}

/** The base with zero temperatures inserted: it gives the base's logits bit for bit. */
export function augment(base: OpenedModel, recipe: Recipe): OpenedModel {
  const spec = specOf(recipe);
  if (!spec) return base;
  if (base.temperatures) {
    if (recipe.final === "adapter")
      throw new UserError(
        `${base.folder} has temperatures already; an adapter needs a plain base`,
        {
          hint: "use final: model",
        },
      );
    if (JSON.stringify(base.temperatures.spec) === JSON.stringify(spec)) return base;
    throw new UserError(`${base.folder} has other temperatures than the recipe asks for`, {
      hint: "start from its base, or state the same temperatures, feature and position",
    });
  }
  const shapes = temperatureShapes(spec, hostOf(base.model));
  const values = new Map(
    [...shapes].map(([name, shape]) => [name, new Float32Array(sizeOf(shape))]),
  );
  const share = addedParameters(values) / countParameters(base.model);
  if (share > recipe.maxAddedShare)
    throw new UserError(
      `the temperatures would add ${(100 * share).toFixed(3)} % parameters, more than ${100 * recipe.maxAddedShare} %`,
      { hint: `leave parts out, or allow it: --max-added-share ${(share * 1.01).toPrecision(2)}` },
    );
  return { ...base, temperatures: { spec, values } };
}

export function addedParameters(values: ReadonlyMap<string, Float32Array> | undefined): number {
  let count = 0;
  for (const { length } of values?.values() ?? []) count += length;
  return count;
}

/** The tensors that train, in a fixed order, with their initial values. */
export async function trainedTensors(
  opened: OpenedModel,
  recipe: Recipe,
): Promise<TrainedTensor[]> {
  const { model, weights, temperatures } = opened;
  checkTune(opened, recipe);
  const tensors: TrainedTensor[] = [];
  const add = (name: string, shape: Shape, values: Float32Array, rest: Rules) =>
    tensors.push({
      name,
      shape: fixedShape(shape),
      values,
      mean: new Float32Array(values.length),
      square: new Float32Array(values.length),
      ...rest,
    });
  if (temperatures && recipe.tune.includes("temperatures"))
    for (const [name, shape] of temperatureShapes(temperatures.spec, hostOf(model)))
      add(name, shape, temperatures.values.get(name)!.slice(), { weightDecay: 0, group: "added" });

  const random = createRandom(recipe.seed, INITIAL_WEIGHTS);
  for (const [name, shape] of model.weights) {
    const kind = model.groupOf(name);
    const isNamed = (kind === "norms" || kind === "biases") && recipe.tune.includes(kind);
    if (!isNamed && !recipe.tune.includes("all")) continue;
    const isMatrix = kind === "matrices" || kind === "embeddings";
    const values =
      recipe.init === "pretrained"
        ? await readFloats(weights.get(name)!)
        : initialValues(sizeOf(shape), kind === "norms" && name.endsWith("weight"), isMatrix);
    add(name, shape, values, {
      weightDecay: isMatrix ? recipe.weightDecay : 0,
      group: isNamed ? "added" : "base",
    });
  }
  return tensors;

  /** Ones for norms, zeros for biases, normal with the config's deviation for matrices. */
  function initialValues(size: number, isScale: boolean, isMatrix: boolean): Float32Array {
    const values = new Float32Array(size);
    if (isScale) return values.fill(1);
    if (!isMatrix) return values;
    return values.map(() => random.normal() * model.config.initializerRange);
  }
}

/** Refuses a choice that would train less than it says. */
function checkTune({ folder, model }: OpenedModel, { tune, init }: Recipe): void {
  if (init === "random" && !tune.includes("all"))
    throw new UserError(`init: random leaves weights that do not train random for good`, {
      hint: "train them too: tune: all",
    });
  const kinds = new Set([...model.weights.keys()].map((name) => model.groupOf(name)));
  for (const kind of ["norms", "biases"] as const)
    if (tune.includes(kind) && !kinds.has(kind))
      throw new UserError(`tune names ${kind}, but ${folder} has none`);
}

/** What is inserted on one kind of projection, over all layers. */
export interface Insertion {
  readonly projection: Projection;
  readonly parts: readonly ("token" | "position")[];
  readonly heads: number;
  readonly parameters: number;
}

/** The table of what temperatures add; projections without any are left out. */
export function insertions({ model, temperatures }: OpenedModel): Insertion[] {
  if (!temperatures) return [];
  const { spec, values } = temperatures;
  const { numHeads, numKeyValueHeads } = model.config;
  return PROJECTIONS.flatMap((projection) => {
    const parts = (["token", "position"] as const).filter((part) => spec[projection][part]);
    if (parts.length === 0) return [];
    const own = [...values].filter(([name]) => name.includes(`.ssa.${projection}.`));
    const parameters = addedParameters(new Map(own));
    const heads = projection === "query" ? numHeads : numKeyValueHeads;
    return [{ projection, parts, heads, parameters }];
  });
}

type Rules = Pick<TrainedTensor, "weightDecay" | "group">;
