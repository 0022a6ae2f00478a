// What trains in a run: the groups that `tune` names, one row each, with their tensors' initial values.

import { type OpenedModel, countParameters } from "../model/opened.ts";
import { createRandom } from "../core/random.ts";
import { UserError } from "../core/errors.ts";
import { fixedShape, sizeOf, type Shape } from "../core/shape.ts";
import type { readFloats } from "../files/safetensors.ts";
import type { WeightGroup } from "../models/index.ts";
import type { Recipe, TuneGroup } from "../options/schema.ts";
import { withInitialValues } from "../insertions/insertion.ts";
import { INSERTION_KINDS, insertionsOf, kindOf } from "../insertions/kinds.ts";
import type { InsertionKind, Insertions } from "../insertions/kinds.ts";
import { lora } from "../insertions/lora.ts";
import { temperatures } from "../insertions/temperatures.ts";
import type { TrainedTensor } from "./adamw.ts";

/** Tensors of a model: what is inserted, and its weights by their use. */
type Kind = InsertionKind | WeightGroup;

interface Group {
  /** What it takes, unless a group before it does. */
  readonly kinds: readonly Kind[];
  readonly rate: TrainedTensor["rate"];
}

const tuneGroups: Readonly<Record<TuneGroup, Group>> = {
  temperatures: { kinds: ["temperatures"], rate: "learningRate" },
  lora: { kinds: ["lora"], rate: "loraLearningRate" },
  norms: { kinds: ["norms"], rate: "learningRate" },
  biases: { kinds: ["biases"], rate: "learningRate" },
  all: { kinds: ["embeddings", "norms", "biases", "matrices"], rate: "baseLearningRate" },
};

/** To these alone the recipe's weight decay applies. */
const DECAYED: readonly Kind[] = ["embeddings", "matrices", "lora"];

export const rateNames = ({ tune }: Pick<Recipe, "tune">) => [
  ...new Set(tune.map((group) => tuneGroups[group].rate)),
];

/** Whether a run leaves the base other than it was, which an adapter cannot hold. */
export const changesBase = ({ tune, init, final }: Recipe) =>
  init === "random" ||
  tune.some((group) => !isInserted(group) || (group === "lora" && final === "model"));

export const isInserted = (name: Kind | TuneGroup) => INSERTION_KINDS.some((kind) => kind === name);

/** Random streams of the seed that no epoch's order of data takes: those are from 0 on. */
const INITIAL_WEIGHTS = -1;
const INITIAL_INSERTION = -2;

/** The base with what the recipe inserts: as long as that has its initial values, it gives the base's logits bit for bit. */
export function augment(base: OpenedModel, recipe: Recipe): OpenedModel {
  const present = insertionsOf(base)
    .map(([kind]) => kindOf(kind).word)
    .join(" and ");
  if (present && recipe.final === "adapter")
    throw new UserError(`${base.folder} has ${present} already; an adapter needs a plain base`, {
      hint: "use final: model",
    });
  const random = createRandom(recipe.seed, INITIAL_INSERTION);
  const asked: Insertions = Object.fromEntries(
    INSERTION_KINDS.filter((kind) => recipe.tune.includes(kind)).map((kind) => {
      const insertion = insertions[kind](base, recipe);
      const { [kind]: there } = base;
      if (!there) return [kind, withInitialValues(insertion, base.model, random)];
      if (JSON.stringify(there.insertion.spec) === JSON.stringify(insertion.spec))
        return [kind, there];
      const problem = `has other ${kindOf(kind).word} than the recipe asks for`;
      const hint = `start from its base, or state the same ${keys[kind]}`;
      throw new UserError(`${base.folder} ${problem}`, { hint });
    }),
  );
  // What is beside attention is to be small; LoRA's rank says for itself what it adds.
  const isNew = asked.temperatures && !base.temperatures;
  const share = isNew ? addedParameters(asked, "temperatures") / countParameters(base.model) : 0;
  if (share > recipe.maxAddedShare)
    throw new UserError(
      `the temperatures would add ${(100 * share).toFixed(3)} % parameters, more than ${Number((100 * recipe.maxAddedShare).toPrecision(6))} %`,
      { hint: `leave parts out, or allow it: --max-added-share ${(share * 1.01).toPrecision(2)}` },
    );
  return { ...base, ...asked };
}

const keys = { temperatures: "temperatures and their forms", lora: "lora" } as const;

/** As a recipe has them. */
const insertions = {
  temperatures: (_: OpenedModel, { feature, position, hidden, tie, ...recipe }: Recipe) =>
    temperatures.of({ feature, position, hidden, tie, ...recipe.temperatures }),
  lora: ({ model }: OpenedModel, recipe: Recipe) => lora.choose(model, recipe.lora),
} satisfies Record<InsertionKind, unknown>;

/** Of all that is inserted, or of one kind. */
export const addedParameters = (opened: Insertions, of?: InsertionKind) =>
  insertionsOf(opened)
    .filter(([kind]) => of === undefined || kind === of)
    .flatMap(([, { values }]) => [...values.values()])
    .reduce((count, { length }) => count + length, 0);

/** Where the threads that compute and update read what trains, which would else be copied on its way to each. */
const shared = (length: number) =>
  // A web page has none but where its server says that it is alone.
  new Float32Array(new (globalThis.SharedArrayBuffer ?? ArrayBuffer)(4 * length));

/**
 * The tensors that train, in a fixed order, with their initial values, those of the base as `read` gives them; a group
 * that would train nothing is refused.
 */
export async function trainedTensors(opened: OpenedModel, recipe: Recipe, read: typeof readFloats) {
  const { folder, model, weights } = opened;
  const { tune, init, seed, weightDecay } = recipe;
  if (init === "random" && !tune.includes("all"))
    throw new UserError(`init: random leaves weights that do not train random for good`, {
      hint: "train them too: tune: all",
    });
  const random = createRandom(seed, INITIAL_WEIGHTS);
  const initialOf = async (name: string, shape: Shape) => {
    if (init === "pretrained") return read(weights.get(name)!);
    const initial = model.initialValue(name);
    return new Float32Array(sizeOf(shape)).map(() => initial(random));
  };
  const inserts = insertionsOf(opened).flatMap(([kind, { insertion, values }]) =>
    [...insertion.parameters(model)].map(
      ([name, { shape }]) => [name, shape, kind, () => values.get(name)!] as const,
    ),
  );
  const own = [...model.weights].map(
    ([name, shape]) => [name, shape, model.groupOf(name), () => initialOf(name, shape)] as const,
  );
  const tensors: TrainedTensor[] = [];
  const used = new Set<TuneGroup>();
  for (const [name, shape, kind, initial] of [...inserts, ...own]) {
    const group = tune.find((name) => tuneGroups[name].kinds.includes(kind));
    if (!group) continue;
    used.add(group);
    const values = shared(sizeOf(shape));
    values.set(await initial());
    const moments = { mean: shared(values.length), square: shared(values.length) };
    const decay = DECAYED.includes(kind) ? weightDecay : 0;
    const how = { weightDecay: decay, rate: tuneGroups[group].rate };
    tensors.push({ name, shape: fixedShape(shape), values, ...moments, ...how });
  }
  const bare = insertionsOf(opened).flatMap(([kind, { values }]) => (values.size ? [] : [kind]));
  if (tensors.length === 0 && bare.length > 0)
    throw new UserError("these temperatures have no parameters: there is nothing to train", {
      hint: "measure them with ssa eval --temperatures PARTS, or train more: tune: temperatures,norms",
    });
  const idle = tune.find((group) => !used.has(group) && !bare.some((kind) => kind === group));
  if (idle || tensors.length === 0)
    throw new UserError(`tune names ${idle ?? "nothing"}, but ${folder} has none`);
  return tensors;
}
