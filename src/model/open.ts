// The one opener: a model folder, plain or augmented, a run, an adapter through its base, or a base with an adapter.
// The config is read, every tensor of the checkpoint is matched with the architecture's, and nothing but headers (and
// the temperatures) is loaded.

import { existsSync, readdirSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import { createRandom } from "../core/random.ts";
import type { JsonObject } from "../core/json.ts";
import { readJson } from "../files/json.ts";
import { adapterFiles, modelFiles, runFiles, snapshotFiles } from "../files/names.ts";
import { isRun, latestSnapshot, snapshotDir } from "../files/run-folder.ts";
import { modelSha256, openSafetensors } from "../files/safetensors.ts";
import type { Checkpoint } from "../files/safetensors.ts";
import { INSERTION_KINDS, type InsertionKind, insertionsOf, kindOf } from "../insertions/kinds.ts";
import { withInitialValues } from "../insertions/insertion.ts";
import { DEFAULT_TEMPERATURES, type TemperatureSpec } from "../insertions/parts.ts";
import { temperatures } from "../insertions/temperatures.ts";
import { readModel } from "../models/index.ts";
import { loadRecipe } from "../options/load.ts";
import { flagsOf, type Quantization } from "./blocks.ts";
import { asBlocks } from "./gguf.ts";
import { kindsIn, readInserted, readInsertions } from "./inserted.ts";
import { matchTensors } from "./match.ts";
import { joinParts, packingOf, quantizedIn } from "./packed.ts";
import { BASE_QUANTIZED, BASE_SHA256, type BaseIdentity, type OpenedModel } from "./opened.ts";
import { DeviationMeter, sameWeight } from "./weights.ts";

export interface OpenOptions {
  /** Folder of an adapter to put on the base. */
  readonly adapter?: string | undefined;
  /** Put in with the values that they have before training. */
  readonly temperatures?: Partial<TemperatureSpec> | undefined;
  /** Read no weights at all, for a model that starts from random ones: config.json is enough. */
  readonly withoutWeights?: boolean;
  /** Finds a model's folder by name, also of the base that an adapter names; only folders are known without it. */
  readonly resolve?: (name: string) => Promise<string>;
  /** How it will be quantised, of which an adapter may know. */
  readonly quantization?: Quantization | null;
  /** Where blocks of integers are kept, for what goes on to compute; this user's own cache by default. */
  readonly cacheDir?: string;
  /** Told which checkpoint of an unfinished run is taken. */
  readonly onNote?: ((note: string) => void) | undefined;
}

/** Opens what a user calls a model: a name, a folder of any kind, or a base with `adapter`. */
export async function openModel(name: string, options: OpenOptions = {}): Promise<OpenedModel> {
  const { adapter, withoutWeights, temperatures: asked } = options;
  if (asked) {
    const opened = await openModel(name, { ...options, temperatures: undefined });
    if (opened.temperatures) throw new UserError(`${opened.folder} has temperatures already`);
    const insertion = temperatures.of({ ...DEFAULT_TEMPERATURES, ...asked });
    return { ...opened, temperatures: withInitialValues(insertion, opened.model, createRandom(0)) };
  }
  const place = await findPlace(name, options.resolve);
  const { folder, run } = place;
  if (run && !existsSync(folder)) return openUnfinished(run, options);
  const configPath = join(folder, modelFiles.config);
  if (!adapter && !existsSync(configPath) && kindsIn(folder).length > 0) {
    const opened = await openModel(await baseOf(folder), { ...options, adapter: folder });
    return { ...opened, ...(run && { run }) };
  }
  if (adapter) refuseForeign(adapter);
  if (adapter && existsSync(join(adapter, snapshotFiles.trained)))
    throw new UserError(`${adapter} is of a run that trained more than temperatures and LoRA`, {
      hint: "name the run's folder as the model: it has all that was trained",
    });
  const hint = "a model folder holds config.json and model.safetensors";
  const { plain: configJson, packing } = packingOf(configPath, await readJson(configPath, hint));
  const model = readModel(configPath, configJson);
  const opened = { ...place, configJson, model };
  if (withoutWeights) return { ...opened, checkpoint: noCheckpoint, weights: none };
  const stored = await openSafetensors(folder);
  const checkpoint = packing ? await joinParts(stored, packing, model) : asBlocks(stored, model);
  const { weights, temperatures: inside } = await matchTensors(folder, model, checkpoint, (a, b) =>
    sameWeight(a, b, new DeviationMeter()),
  );
  const augmented = { ...opened, checkpoint, weights, ...quantizedIn(weights) };
  // Parts without parameters are in the config alone; an adapter's config is beside its own tensors.
  const { config: stated } = adapterFiles.temperatures;
  const isBare = existsSync(join(folder, stated)) && !kindsIn(folder).includes("temperatures");
  if (!adapter)
    return inside.size > 0 || isBare
      ? { ...augmented, temperatures: await readInserted("temperatures", folder, model, inside) }
      : augmented;
  if (inside.size > 0)
    throw new UserError(`${folder} has temperatures already; an adapter needs a plain base`);
  const trained = await checkBase(adapter, folder, checkpoint);
  const { quantized: now = "--quantize none" } = flagsOf(options.quantization);
  if (trained && trained !== now)
    options.onNote?.(`${adapter} was trained on its base with ${trained}, here it is on ${now}`);
  const inserted = await readInsertions(adapter, model);
  const template = resolve(adapter, modelFiles.chatTemplate);
  const own = existsSync(template) && { chatTemplate: template };
  if (insertionsOf(inserted).length > 0)
    return { ...augmented, ...inserted, ...own, adapter: resolve(adapter) };
  const names = INSERTION_KINDS.map((kind) => adapterFiles[kind].weights);
  throw new UserError(`${adapter} is no adapter: it has neither ${names.join(" nor ")}`);
}

const none = new Map<string, never>();
const noCheckpoint: Checkpoint = { files: [], tensors: none, metadata: {}, absent: none };

/**
 * Where a model is: the name that finds it again from anywhere, its folder (a run's final/, whether it is there or not),
 * and the run's folder; without a resolver only folders are known.
 */
async function findPlace(name: string, resolveName: OpenOptions["resolve"]) {
  const path = resolve(name);
  const run = [path, ...(basename(path) === runFiles.final ? [dirname(path)] : [])].find(isRun);
  if (run) {
    const folder = join(run, runFiles.final);
    return { name: folder, folder, run };
  }
  refuseForeign(name);
  const isHere = existsSync(name);
  if (!isHere && !resolveName) throw new UserError(`there is no folder "${name}"`);
  const folder = resolveName ? await resolveName(name) : name;
  return { name: isHere ? path : name, folder: resolve(folder) };
}

const foreign = [
  [
    /^adapter_model\.(bin|pt)$|^adapter_config\.json$/,
    "an adapter of PEFT without adapter_model.safetensors",
    "save it in Python as that: model.save_pretrained(FOLDER)",
  ],
  [/\.gguf$/i, "a folder around a GGUF file", "name the file itself"],
] as const;

/** Names what other programs' formats are, where they are given for a model or an adapter of ours. */
function refuseForeign(path: string): void {
  if (!existsSync(path)) return;
  const names = statSync(path).isDirectory() ? readdirSync(path) : [];
  if (names.includes(modelFiles.config) || kindsIn(path).length > 0) return;
  for (const [pattern, what, hint] of foreign)
    if (names.some((name) => pattern.test(name)))
      throw new UserError(`${path} is ${what}, which ssa does not read`, { hint });
}

/** A run that has no final/ yet is its base with the checkpoint that it would end with now. */
async function openUnfinished(run: string, { adapter, ...options }: OpenOptions) {
  const path = join(run, runFiles.recipe);
  const recipe = loadRecipe({ file: { path, text: await readFile(path, "utf8") } });
  if (options.withoutWeights) return openModel(recipe.base, options);
  const found = await latestSnapshot(run);
  if (!found || adapter) {
    const lacks = found ? "an adapter needs a plain base" : "it has no checkpoint yet";
    throw new UserError(`the run ${run} is not finished, and ${lacks}`, {
      hint: `finish it: ssa finetune --resume --out ${run}`,
    });
  }
  const { bestStep } = (found.state as { loop?: { bestStep?: number } }).loop ?? {};
  const best = snapshotDir(run, bestStep ?? found.step);
  const dir = recipe.earlyStopping !== "off" && existsSync(best) ? best : found.dir;
  options.onNote?.(`the run ${run} is not finished: ${basename(dir)} is taken`);
  const withoutWeights = recipe.init === "random";
  const base = await openModel(recipe.base, { ...options, withoutWeights });
  return { ...(await withSnapshot(base, dir)), name: resolve(run), run };
}

/** The model with a snapshot's tensors in place of those that it was trained from. */
export async function withSnapshot(opened: OpenedModel, dir: string): Promise<OpenedModel> {
  const { model, checkpoint } = opened;
  const path = join(dir, snapshotFiles.trained);
  const trained = existsSync(path) ? await openSafetensors(path) : noCheckpoint;
  const files = [...checkpoint.files, ...trained.files];
  const tensors = new Map([...checkpoint.tensors, ...trained.tensors]);
  const overlaid = (weights: OpenedModel["weights"]) => new Map([...weights, ...trained.tensors]);
  const { quantized } = opened;
  return {
    ...opened,
    checkpoint: { ...checkpoint, files, tensors },
    weights: overlaid(opened.weights),
    ...(quantized && { quantized: { ...quantized, weights: overlaid(quantized.weights) } }),
    ...(await readInsertions(dir, model)),
    adapter: dir,
  };
}

/** What a record says of a base, under its own keys. */
export function recordedBase(record: JsonObject, keys: BaseIdentity): BaseIdentity {
  const found = Object.entries(keys).map(([field, key]) => [field, record[key]]);
  return Object.fromEntries(found.filter(([, value]) => value && typeof value === "string"));
}

const inMetadata = { sha256: BASE_SHA256, quantized: BASE_QUANTIZED };

/** What each of an adapter's kinds says of the base that it was put on. */
export async function basesIn(adapter: string): Promise<BaseIdentity[]> {
  const read = async (kind: InsertionKind): Promise<BaseIdentity> => {
    const { config, weights } = adapterFiles[kind];
    const json = await readJson(join(adapter, config));
    const { metadata } = await openSafetensors(join(adapter, weights));
    const stated = recordedBase(json, kindOf(kind).baseKeys);
    return { ...recordedBase(metadata, inMetadata), ...stated };
  };
  return Promise.all(kindsIn(adapter).map(read));
}

async function baseOf(adapter: string): Promise<string> {
  const { name, revision } = Object.assign({}, ...(await basesIn(adapter))) as BaseIdentity;
  if (name === undefined)
    throw new UserError(`${adapter} is an adapter and does not name its base`, {
      hint: "name both: --model BASE --adapter DIR",
    });
  return revision ? `${name}@${revision}` : name;
}

/** Refuses an adapter that names another base by its checksum; gives the flags by which its base was quantised. */
async function checkBase(adapter: string, folder: string, checkpoint: Checkpoint) {
  const bases = await basesIn(adapter);
  for (const { name, sha256 } of bases) {
    const found = sha256 && (await modelSha256(checkpoint));
    if (found !== sha256)
      throw new UserError(`${adapter} was trained on another base than ${folder}`, {
        hint: `its base is ${JSON.stringify(name)} with SHA-256 ${JSON.stringify(sha256)}, this one has ${String(found)}`,
      });
  }
  return bases.find(({ quantized }) => quantized)?.quantized;
}
