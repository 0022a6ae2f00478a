// What a model holds, from headers alone; and what its attention does with a text.

import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { sizeOf } from "../core/shape.ts";
import type { Tokens } from "../data/document.ts";
import type { Engine } from "../engines/index.ts";
import { AttentionStatistics } from "../evaluate/attention.ts";
import { openScorer } from "../evaluate/scorer.ts";
import type { OpenOptions } from "../model/open.ts";
import { countParameters, type OpenedModel } from "../model/opened.ts";
import { withBlocks } from "../model/quantize.ts";
import { openNamed, type Places, placesOf, tokenizerOf, withEngine } from "../model/places.ts";
import type { Projection } from "../nn/attention.ts";
import type { Inserted } from "../insertions/insertion.ts";
import { type InsertionKind, insertionsOf } from "../insertions/kinds.ts";
import { addedParameters } from "../train/groups.ts";

export type Inspection = Awaited<ReturnType<typeof inspectModel>>;

/** Reads headers and configs only (and an augmented model's temperatures): instant at any size. */
export async function inspectModel(name: string, options: OpenOptions & Partial<Places> = {}) {
  const opened = await openNamed(name, options);
  const { model, configJson, checkpoint, temperatures, lora, folder } = opened;
  const stored = [...checkpoint.tensors.values()];
  const total = countParameters(model);
  const about = (kind: InsertionKind, inserted: Inserted) => {
    const added = addedParameters(opened, kind);
    const places = inserted.insertion.describe(model);
    const description = places.map(({ place, form }) => `${place}: ${form}`).join("; ");
    return { parameters: added, share: added / total, description };
  };
  const sizes = await Promise.all(checkpoint.files.map(async (file) => (await stat(file)).size));
  const tokenizer = ["tokenizer.json", "tokenizer.model", "vocab.json"];
  const weights = [...model.weights];
  const groups = weights.map(([name, shape]) => [model.groupOf(name), sizeOf(shape)] as const);
  return {
    modelType: String(configJson["model_type"]),
    config: model.config,
    /** Of the base; a tied output embedding counts once. */
    parameters: { total, groups: sums(groups) },
    dtypes: sums(stored.map(({ dtype }) => [dtype, 1])),
    files: checkpoint.files,
    sizeBytes: sizes.reduce((sum, size) => sum + size, 0),
    tokenizer: tokenizer.find((name) => existsSync(join(folder, name))) ?? null,
    isAugmented: insertionsOf(opened).length > 0,
    temperatures: temperatures
      ? { ...about("temperatures", temperatures), spec: temperatures.insertion.spec }
      : null,
    lora: lora ? about("lora", lora) : null,
    tensors: stored.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
  };
}

function sums(amounts: Iterable<readonly [string, number]>): Record<string, number> {
  const all: Record<string, number> = {};
  for (const [key, amount] of amounts) all[key] = (all[key] ?? 0) + amount;
  return all;
}

export interface InspectTextOptions extends Partial<Places> {
  readonly adapter?: string | undefined;
  /** Whose τ is given; the mean over all by default. A head of a group is that of its keys and values. */
  readonly layer?: number | undefined;
  readonly head?: number | undefined;
  readonly device?: string;
  readonly threads?: number | "auto";
}

export type TextInspection = Awaited<ReturnType<typeof inspectText>>;

/** Runs a model on a text, as it is and without what is inserted: every token's τ, and how far attention spreads. */
export async function inspectText(name: string, text: string, options: InspectTextOptions = {}) {
  const { adapter, layer, head, device = "auto", threads = "auto" } = options;
  const places = placesOf(options);
  const named = await openNamed(name, { ...places, adapter });
  const opened = await withBlocks(named, null, places);
  const { numLayers, numHeads, maxPositions } = opened.model.config;
  for (const [what, count] of [["layer", numLayers] as const, ["head", numHeads] as const]) {
    const at = options[what] ?? 0;
    if (at >= count)
      throw new UserError(`${what} ${at} is not there: the model has ${what}s 0 to ${count - 1}`);
  }
  const tokenizer = await tokenizerOf(opened);
  const { ids } = tokenizer.encode([{ text, isTarget: true, isLast: true }]);
  const tokens = Uint32Array.from([...tokenizer.prefix, ...ids]);
  if (tokens.length < 2 || tokens.length > maxPositions)
    throw new UserError(`the text has ${tokens.length} tokens, expected 2 to ${maxPositions}`);
  const { temperatures: _, lora: __, ...base } = opened;
  const [after, before] = await withEngine({ device, threads }, places, async (engine) => [
    await attentionOn(engine, opened, tokens),
    insertionsOf(opened).length > 0 ? await attentionOn(engine, base, tokens) : null,
  ]);
  const sites = after.sites.filter((site) => layer === undefined || site.layer === layer);
  const tauOf = (token: number, projection: Projection) => {
    const own = sites.filter((site) => site.projection === projection);
    const rows = own.flatMap(({ heads }) =>
      head === undefined ? heads : [heads[Math.floor((head * heads.length) / numHeads)]!],
    );
    return rows.reduce((sum, { kept }) => sum + kept[token]!, 0) / rows.length;
  };
  const projections = new Set(sites.map(({ projection }) => projection));
  const texts = tokenizer.spell(tokens);
  return {
    layer: layer ?? ("mean" as const),
    head: head ?? ("mean" as const),
    tokens: Array.from(tokens, (id, i) => {
      const taus = [...projections].map((projection) => [projection, tauOf(i, projection)]);
      const tau = Object.fromEntries(taus) as Readonly<Partial<Record<Projection, number>>>;
      return { id, text: texts[i]!, nats: after.nats[i - 1] ?? null, tau };
    }),
    /** Nats, by layer, mean over heads and tokens; `before` is without what is inserted. */
    entropy: after.entropies.map((entropy, layer) => {
      return { layer, before: before?.entropies[layer] ?? null, after: entropy };
    }),
  };
}

export async function attentionOn(engine: Engine, opened: OpenedModel, tokens: Tokens) {
  const { length } = tokens;
  const observe = new AttentionStatistics(length);
  const how = { batchSize: 1, context: length, observe, needsEntropy: true };
  await using scorer = await openScorer(engine, opened, how);
  const window = { text: 0, start: 0, length, scoreFrom: 1, numTargets: length - 1 };
  const [loss] = await scorer.score([{ tokens }], [window]);
  const { sites, attention } = observe;
  return { sites, attention, entropies: observe.entropies(), nats: loss!.tokenNats! };
}
