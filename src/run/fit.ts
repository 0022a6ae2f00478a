// What a run would do, before it does it: whether it fits in memory, what it recomputes so that it does, and its plan.

import { freeMemory } from "../core/memory.ts";
import type { Precision } from "../core/dtype.ts";
import { orElse, UserError } from "../core/errors.ts";
import { checkBatch } from "../data/windows.ts";
import type { Engine } from "../engines/index.ts";
import { linkBytes } from "../engines/ranks/sums.ts";
import type { OpenedModel } from "../model/opened.ts";
import { planBlocks } from "../model/quantize.ts";
import { withEngine } from "../model/places.ts";
import { type Recipe, sequencesOf } from "../options/schema.ts";
import { needPrecision, type TrainingOptions } from "../train/step.ts";
import { type Prepared, sourceFacts } from "./prepare.ts";
import { graphsOf } from "./work.ts";

type Recompute = NonNullable<TrainingOptions["recompute"]>;
type Size = ReturnType<typeof fitBy>;
/** `scoresOriginal`: whether there is room for what a quantised base was before. */
export type Fit = Size & { readonly scoresOriginal: boolean };
/** What `auto` became before, or by trying. */
export type Chosen = Partial<Pick<How, "precision" | "batchSize">>;
export type OnEngine = <T>(
  work: (engine: Engine, fit: Fit) => Promise<T>,
  choose?: (engine: Engine) => Promise<Chosen>,
) => Promise<T>;

/** What a run could do otherwise, for the memory that it takes; `batchSize` sequences are a micro batch. */
export type How = Readonly<{ batchSize: number; precision: Precision; recompute: Recompute }>;

/** Where turns save less, the time that they take, up to a second or two for each evaluation, is worth more. */
const LEAST_SAVED_BYTES = 128e6;

/** Value, two moments, and the gradient's sum over micro batches; the gradient and what the engine is fed. */
const COPIES_OF_TRAINED = 4;
const COPIES_OF_A_LANE = 2;

const SMALLER = "lower --batch-size (and raise --gradient-accumulation-steps)";

export interface Machine {
  /** What the process holds now. */
  readonly programBytes: number;
  /** What else there is. */
  readonly freeBytes: number;
  readonly engine: Omit<Engine, "description" | "compile" | "dispose">;
}

/** Starts a run's engine, which ends with the work. */
export const onEngineOf =
  (run: Prepared): OnEngine =>
  (work, choose) =>
    withEngine(run.recipe, run.places, async (engine) => {
      // Before anything is scored or planned.
      if (run.recipe.precision !== "auto") needPrecision(engine, run.recipe.precision);
      const chosen = await choose?.(engine);
      const programBytes = process.memoryUsage.rss();
      return work(engine, fitRun(run, { programBytes, freeBytes: freeMemory(), engine }, chosen));
    });

/** The half precision that `auto` tries, since it is faster there: of a device with memory of its own. */
export function halfOf({ room, precisions }: Machine["engine"]) {
  const known = room.device > 0 ? (["bf16", "fp16"] as const) : [];
  return known.find((name) => precisions.includes(name));
}

/** So many sequences can be cut into micro batches of these sizes, the largest first, at most `most`. */
export function divisorsOf(sequences: number, most: number): number[] {
  const sizes = Array.from({ length: Math.floor(most) }, (_, i) => i + 1);
  return sizes.filter((size) => sequences % size === 0).reverse();
}

/**
 * Micro batches that divide a step's sequences, the largest first: up to what was chosen before, and with one for each
 * device at least. A processor gets single sequences, which are as fast there and take the least; so does a device
 * whose memory nobody knows.
 */
function microBatches(
  recipe: Recipe,
  { room, lanes }: Machine["engine"],
  { deviceFree, batchSize: most = Infinity }: Chosen & { deviceFree?: number | undefined },
): readonly number[] {
  if (recipe.batchSize !== "auto") return [recipe.batchSize];
  const isKnown = room.device > 0 && deviceFree !== undefined;
  const sequences = sequencesOf(recipe);
  return divisorsOf(sequences, isKnown ? Math.min(most, sequences / lanes) : 1);
}

/**
 * The largest micro batch that fits where the recipe leaves its size open. Recomputes whole blocks where the recipe says
 * so, or where it leaves the choice and the run would not fit otherwise; a run that cannot fit is refused, by part.
 */
export function fitRun(run: Prepared, machine: Machine, chosen: Chosen = {}): Fit {
  const { programBytes, freeBytes, engine } = machine;
  const { precision: asked, recompute, deviceMemory, maxMemory } = run.recipe;
  const precision = asked === "auto" ? (chosen.precision ?? halfOf(engine) ?? "fp32") : asked;
  const deviceFree = deviceMemory === "auto" ? engine.deviceFree : 1e9 * deviceMemory;
  const free = maxMemory === "auto" ? freeBytes : 1e9 * maxMemory - programBytes;
  const isRoomy = ({ totalBytes }: Size) => totalBytes - programBytes <= free;
  const fits = (fit: Size) => isRoomy(fit) && fit.deviceBytes <= (deviceFree ?? Infinity);
  const sizes = microBatches(run.recipe, engine, { ...chosen, deviceFree });
  checkBatch({ batchSize: sizes.at(-1)!, context: run.context });
  const by = (recompute: Recompute, batchSize = sizes.at(-1)!) =>
    fitBy(run, machine, { batchSize, precision, recompute });
  const first: Recompute = recompute === true ? "blocks" : "cheap";
  const least: Recompute = recompute === false ? "cheap" : "blocks";
  let fit: Size | undefined;
  for (const how of new Set([first, least]))
    for (const size of sizes)
      if (fits((fit = by(how, size)))) {
        const original = { ...fit, ...scoringOf(run, machine, fit) };
        return { ...fit, scoresOriginal: fits(original) };
      }
  const now = by(first);
  const { program, weights, trained, training, scoring } = now.memoryBytes;
  const parts = { "the program": program, weights, "what trains": trained };
  const shares = Object.entries({ ...parts, "a training step": training, scoring })
    .map(([name, bytes]) => `${name} ${megabytes(bytes)}`)
    .join(", ");
  const why = isRoomy(fit!)
    ? `${megabytes(now.deviceBytes)} of a device on which ${megabytes(deviceFree!)} are free`
    : `${megabytes(now.totalBytes)} and ${megabytes(programBytes + free)} are ${maxMemory === "auto" ? "there" : "allowed"}: ${shares}`;
  const size = isRoomy(fit!) ? "deviceBytes" : "totalBytes";
  const how = { batchSize: sizes.at(-1)!, precision, recompute: least };
  const ways = lessBy(run, machine, how, (fit) => fit[size] < now[size]).map(({ flags, fit }) => {
    return `${flags} takes ${megabytes(fit[size])}${fits(fit) ? "" : ", too much as well"}`;
  });
  if (how.batchSize > 1) ways.push(ways.length > 0 ? `or ${SMALLER}` : SMALLER);
  throw new UserError(`the run needs about ${why}`, {
    hint: ways.join("; ") || "it takes a smaller model, or a machine with more memory",
  });
}

const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;

/** What a run would take otherwise: by each of the flags that take less, and by all of them. */
function lessBy(run: Prepared, machine: Machine, how: How, isLess: (fit: Size) => boolean) {
  const { opened, shapes, recipe, context } = run;
  const spec = { bits: 4, block: 32, head: false } as const;
  const isFree = !opened.quantized && !recipe.tune.includes("all");
  const half = Math.floor(context / 2);
  const shorter = { ...shapes, training: { ...shapes.training, context: half } };
  shorter.scoring = { ...shapes.scoring, context: half };
  type Change = readonly [flag: string, run: Partial<Prepared>, how?: Partial<How>];
  const changes: Change[] = [];
  if (recipe.recompute !== true) changes.push(["--recompute", {}, { recompute: "blocks" }]);
  const planned = isFree ? orElse(() => planBlocks(opened, spec), undefined) : undefined;
  if (planned) changes.push(["--quantize q4", { opened: planned }]);
  if (half >= 2) changes.push([`--context ${half}`, { shapes: shorter }]);
  const tryOut = ([flags, change, also]: Change) => {
    const fit = fitBy({ ...run, ...change }, machine, { ...how, ...also });
    return { flags, fit, change, also };
  };
  const useful = changes.map(tryOut).filter(({ fit }) => isLess(fit));
  if (useful.length < 2) return useful;
  const flags = useful.map((way) => way.flags).join(" ");
  const change: Partial<Prepared> = Object.assign({}, ...useful.map((way) => way.change));
  const also: Partial<How> = Object.assign({}, ...useful.map((way) => way.also));
  return [...useful, tryOut([flags, change, also])];
}

/** What scoring a quantised base as it was before takes; of any other, nothing more. */
function scoringOf(run: Prepared, { programBytes, engine }: Machine, how: How) {
  const { quantized, ...opened } = run.opened;
  if (!quantized) return {};
  const { host, device } = engine.estimate(graphsOf({ ...run, opened }, engine, how).scoring);
  const program = programBytes + engine.room.host;
  return {
    totalBytes: program + weightBytes(opened) + host,
    deviceBytes: engine.room.device + device,
  };
}

const weightBytes = ({ weights, quantized }: OpenedModel) =>
  [...(quantized?.weights ?? weights).values()].reduce((sum, w) => sum + w.byteLength, 0);

export type RunPlan = Awaited<ReturnType<typeof planRun>>;

/** As `--dry-run` shows. */
export const planRun = (run: Prepared) =>
  onEngineOf(run)(async (engine, fit) => {
    const { recipe, opened, parameters, context, heldOut, reportPlan, evalPlan, trainTokens } = run;
    const { base, trained, added, share } = parameters;
    const { steps, evalEvery } = recipe;
    const hosts = run.places.ranks?.hosts ?? [];
    const sequences = sequencesOf(recipe);
    const tokensPerStep = sequences * context;
    const epochs = (steps * sequences) / run.sources.reduce((sum, of) => sum + of.numRows, 0);
    return {
      base: { name: recipe.base, folder: opened.folder, parameters: base },
      trained: { parameters: trained, added, share },
      data: { trainTokens, epochs, heldOut, sources: sourceFacts(run) },
      training: { steps, tokensPerStep, context },
      /** Windows scored before and after, and at each of the evaluations on the way. */
      evaluation: {
        context,
        reportWindows: reportPlan.windows.length,
        evalWindows: evalPlan.windows.length,
        evaluations: Math.ceil(steps / evalEvery),
      },
      device: engine.description,
      ...(new Set(hosts).size > 1 && {
        network: {
          hosts: new Set(hosts).size,
          bytesPerStep: linkBytes(trained, fit.gradientAccumulationSteps, hosts.length),
        },
      }),
      ...fit,
    };
  });

/** What a run keeps in memory, in bytes. */
function fitBy(run: Prepared, { programBytes, engine }: Machine, how: How) {
  const graphs = graphsOf(run, engine, how);
  const [training, scoring] = [engine.estimate(graphs.training), engine.estimate(graphs.scoring)];
  const memoryBytes = {
    program: programBytes + engine.room.host,
    weights: weightBytes(run.opened),
    trained: 4 * (COPIES_OF_TRAINED + COPIES_OF_A_LANE * engine.lanes) * run.parameters.trained,
    /** Activations and what else its session holds: of a training step, and of scoring. */
    training: training.host,
    scoring: scoring.host,
  };
  const { program, weights, trained } = memoryBytes;
  // Weights that two sessions map count twice.
  const saved = weights + Math.min(memoryBytes.training, memoryBytes.scoring);
  const takesTurns = engine.mapsWeights && saved >= LEAST_SAVED_BYTES;
  const together = (a: number, b: number) => (takesTurns ? Math.max(a, b) : a + b);
  const sessions = together(memoryBytes.training, memoryBytes.scoring);
  return {
    ...how,
    /** Of a step. */
    gradientAccumulationSteps: sequencesOf(run.recipe) / how.batchSize,
    /** Training and scoring are never in memory at once; each is compiled again when it is its turn. */
    takesTurns,
    memoryBytes,
    totalBytes: program + weights + trained + sessions,
    /** On each device with memory of its own; 0 without one. */
    deviceBytes: engine.room.device + together(training.device, scoring.device),
  };
}
