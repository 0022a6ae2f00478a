// What trains in a run: the groups that `tune` names, one row each, with their tensors' initial values.

import { type OpenedModel, countParameters } from "../model/open.ts";
import { createRandom } from "../core/random.ts";
import { UserError } from "../core/errors.ts";
import { fixedShape, sizeOf, type Shape } from "../core/shape.ts";
import { readFloats } from "../files/safetensors.ts";
import type { WeightGroup } from "../models/index.ts";
import type { Recipe, TuneGroup } from "../options/schema.ts";
import { type Values, withInitialValues } from "../insertions/insertion.ts";
import { temperatures } from "../insertions/temperatures.ts";
import type { TrainedTensor } from "./adamw.ts";

/** Tensors of a model: what is inserted, and its weights by their use. */
type Kind = "temperatures" | WeightGroup;

/** What each group takes, unless a group before it does. */
const tuneGroups: Readonly<Record<TuneGroup, readonly Kind[]>> = {
  temperatures: ["temperatures"],
  norms: ["norms"],
  biases: ["biases"],
  all: ["embeddings", "norms", "biases", "matrices"],
};

/** To these alone the recipe's weight decay applies. */
const DECAYED: readonly Kind[] = ["embeddings", "matrices"];

/** Whether a run leaves the base other than it was, which an adapter cannot hold. */
export const changesBase = ({ tune, init }: Recipe) =>
  init === "random" || tune.some((group) => group !== "temperatures");

/** Random streams of the seed that no epoch's order of data takes. */
const INITIAL_WEIGHTS = -1;
const INITIAL_INSERTION = -2;

/** The base with what the recipe inserts: as long as that has its initial values, it gives the base's logits bit for bit. */
export function augment(base: OpenedModel, recipe: Recipe): OpenedModel {
  const { tune, feature, position } = recipe;
  if (!tune.includes("temperatures")) return base;
  const insertion = temperatures.of({ feature, position, ...recipe.temperatures });
  if (base.temperatures) {
    if (recipe.final === "adapter")
      throw new UserError(
        `${base.folder} has temperatures already; an adapter needs a plain base`,
        { hint: "use final: model" },
      );
    if (JSON.stringify(base.temperatures.insertion.spec) === JSON.stringify(insertion.spec))
      return base;
    throw new UserError(`${base.folder} has other temperatures than the recipe asks for`, {
      hint: "start from its base, or state the same temperatures, feature and position",
    });
  }
  const random = createRandom(recipe.seed, INITIAL_INSERTION);
  const inserted = withInitialValues(insertion, base.model, random);
  const share = addedParameters(inserted.values) / countParameters(base.model);
  if (share > recipe.maxAddedShare)
    throw new UserError(
      `the temperatures would add ${(100 * share).toFixed(3)} % parameters, more than ${100 * recipe.maxAddedShare} %`,
      { hint: `leave parts out, or allow it: --max-added-share ${(share * 1.01).toPrecision(2)}` },
    );
  return { ...base, temperatures: inserted };
}

export const addedParameters = (values?: Values) =>
  [...(values?.values() ?? [])].reduce((count, { length }) => count + length, 0);

/** Where the threads that compute read what trains, which would else be copied on its way to each. */
function inSharedMemory(values: Float32Array): Float32Array {
  const shared = new Float32Array(new SharedArrayBuffer(values.byteLength));
  shared.set(values);
  return shared;
}

/** The tensors that train, in a fixed order, with their initial values; a group that would train nothing is refused. */
export async function trainedTensors(
  opened: OpenedModel,
  { tune, init, seed, weightDecay }: Recipe,
): Promise<TrainedTensor[]> {
  const { folder, model, weights, temperatures: inserted } = opened;
  if (init === "random" && !tune.includes("all"))
    throw new UserError(`init: random leaves weights that do not train random for good`, {
      hint: "train them too: tune: all",
    });
  const random = createRandom(seed, INITIAL_WEIGHTS);
  const inserts = [...(inserted?.insertion.parameters(model) ?? [])];
  const candidates: readonly (readonly [string, Shape, Kind])[] = [
    ...inserts.map(([name, { shape }]) => [name, shape, "temperatures"] as const),
    ...[...model.weights].map(([name, shape]) => [name, shape, model.groupOf(name)] as const),
  ];
  const tensors: TrainedTensor[] = [];
  const used = new Set<TuneGroup>();
  for (const [name, shape, kind] of candidates) {
    const group = tune.find((name) => tuneGroups[name].includes(kind));
    if (!group) continue;
    used.add(group);
    const values = inSharedMemory(await initialValues(name, shape, kind));
    tensors.push({
      name,
      shape: fixedShape(shape),
      values,
      mean: new Float32Array(values.length),
      square: new Float32Array(values.length),
      weightDecay: DECAYED.includes(kind) ? weightDecay : 0,
      rate: group === "all" ? "baseLearningRate" : "learningRate",
    });
  }
  const idle = tune.find((group) => !used.has(group));
  if (idle || tensors.length === 0)
    throw new UserError(`tune names ${idle ?? "nothing"}, but ${folder} has none`);
  return tensors;

  /** At random: what changes nothing for norms, zeros for biases, normal with the config's deviation for matrices. */
  function initialValues(name: string, shape: Shape, kind: Kind) {
    if (kind === "temperatures") return inserted!.values.get(name)!.slice();
    if (init === "pretrained") return readFloats(weights.get(name)!);
    const values = new Float32Array(sizeOf(shape));
    if (kind === "norms" && name.endsWith("weight")) return values.fill(model.unitNorm);
    if (kind === "norms" || kind === "biases") return values;
    return values.map(() => random.normal() * model.config.initializerRange);
  }
}
