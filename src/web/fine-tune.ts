// Fine-tuning in a page: what `ssa finetune` does between opening and writing, of temperatures alone.

import { bytes } from "../core/format.ts";
import { UserError } from "../core/errors.ts";
import { mixedBatches } from "../data/training.ts";
import type { Engine } from "../engines/engine.ts";
import { WASM_BYTES } from "../engines/onnxruntime/web.ts";
import { estimate, pairedDelta } from "../evaluate/statistics.ts";
import { headerBytes, inFileOrder } from "../files/safetensors-header.ts";
import { adapterFiles } from "../files/names.ts";
import { adapterJson, BASE_SHA256, contextOf, insertedTensors } from "../model/opened.ts";
import type { BaseIdentity, OpenedModel } from "../model/opened.ts";
import type { Recipe } from "../options/schema.ts";
import { layOut, subset } from "../run/lay-out.ts";
import { graphsOf, type Listener, openHeldOut } from "../run/work.ts";
import { augment, trainedTensors } from "../train/groups.ts";
import { openHost } from "../train/host.ts";
import { INITIAL_STATE, type LoopCallbacks, trainLoop } from "../train/loop.ts";
import { openTrainingStep } from "../train/step.ts";
import { corpusOf, type PageModel, type Texts } from "./folder.ts";

export type PageRun = Awaited<ReturnType<typeof preparePageRun>>;

/** Everything before the first step; what is wrong with a recipe, model or text is told here. */
export async function preparePageRun(of: PageModel, texts: Texts, recipe: Recipe) {
  const { opened: base, tokenizer, readFloats } = of;
  const opened = augment(base, recipe);
  const context = contextOf(opened, recipe.context === "auto" ? undefined : recipe.context);
  const batchSize = recipe.batchSize === "auto" ? 1 : recipe.batchSize;
  const chosen = { tokenizer, path: "", weight: null, description: "what was chosen" };
  const train = { ...corpusOf(texts.train, tokenizer), ...chosen };
  const evaluation = corpusOf(texts.heldOut, tokenizer);
  const laidOut = layOut(opened, { ...recipe, context }, [train], evaluation);
  const tensors = await trainedTensors(opened, recipe, readFloats);
  const feeds = Object.fromEntries(tensors.map(({ name, values }) => [name, values]));
  const trainTokens = train.numTokens;
  return { recipe, opened, context, batchSize, ...laidOut, tensors, feeds, trainTokens };
}

/** What the run takes of the page's memory, or of a device's; more than WebAssembly's addresses reach is refused. */
export function bytesFor(run: PageRun, engine: Pick<Engine, "estimate" | "room" | "tiling">) {
  const { opened, batchSize } = run;
  const graphs = Object.values(graphsOf(run, engine, { batchSize }));
  const rooms = graphs.map((graph) => engine.estimate(graph));
  const sum = (key: "host" | "device") =>
    rooms.reduce((total, room) => total + room[key], engine.room[key]);
  const weights = [...opened.weights.values()].reduce((total, of) => total + of.byteLength, 0);
  // Each session has the weights by itself, on a device or here.
  const host = sum("host") + (engine.room.device > 0 ? weights : graphs.length * weights);
  if (host <= WASM_BYTES) return host + sum("device");
  const problem = `this run would take about ${bytes(host)}, and a page has ${bytes(WASM_BYTES)}`;
  throw new UserError(problem, {
    hint: "take a smaller model or context here, or ssa finetune on the command line",
  });
}

/** Trains the prepared tensors in place: perplexity before and after, and their difference. */
export async function trainInPage(run: PageRun, engine: Engine, { signal, onEvent }: Listener) {
  const { recipe, opened, tensors, batchSize, shapes, reportPlan, evalPlan } = run;
  const work = { ...run, engine, fit: { batchSize }, signal, onEvent };
  const heldOut = await openHeldOut(work, opened);
  try {
    const before = await heldOut.score("before", reportPlan);
    const names = tensors.map(({ name }) => name);
    const step = await openTrainingStep(engine, opened, { ...shapes.training, batchSize }, names);
    const batches = mixedBatches(run.sources, { seed: recipe.seed, epoch: 0, index: 0 });
    const callbacks: LoopCallbacks = {
      nextBatch: () => batches.next(batchSize),
      onStep: ({ seconds, ...step }) => {
        const tokensPerSecond = step.numTokens / seconds;
        onEvent({ kind: "step", steps: recipe.steps, ...step, tokensPerSecond });
      },
      evaluate: async (at) => {
        const known = at === 0 ? subset(before, reportPlan, evalPlan) : undefined;
        const { lossNats } = estimate(known ?? (await heldOut.score("on the way", evalPlan)));
        onEvent({ kind: "evaluated", step: at, lossNats });
        return lossNats;
      },
      save: () => Promise.resolve(),
      shouldStop: () => signal.aborted,
    };
    // Nothing is kept on the way that an earlier step could be brought back from.
    const how = { ...recipe, earlyStopping: "off" } as const;
    try {
      await trainLoop(step, tensors, openHost(tensors), how, callbacks, INITIAL_STATE);
    } finally {
      await step.dispose();
    }
    signal.throwIfAborted();
    const after = await heldOut.score("after", reportPlan);
    const [from, to] = [before, after].map((losses) => reportPlan.resultOf(losses, ""));
    return { before: from!, after: to!, delta: pairedDelta(before, after) };
  } finally {
    await heldOut.dispose();
  }
}

/** The files of an adapter, as the export writes them. */
export function adapterOf({ opened, tensors }: PageRun, base: BaseIdentity) {
  const { insertion } = opened.temperatures!;
  const values = new Map(tensors.map(({ name, values }) => [name, values]));
  const trained: OpenedModel = { ...opened, temperatures: { insertion, values } };
  const sorted = inFileOrder(insertedTensors("temperatures", trained));
  const metadata = { format: "pt", ...(base.sha256 && { [BASE_SHA256]: base.sha256 }) };
  const data = sorted.map((tensor) => new Uint8Array(tensor.data as Uint8Array));
  const json = JSON.stringify(adapterJson("temperatures", trained, base), null, 2);
  const { config, weights } = adapterFiles.temperatures;
  return new Map([
    [config as string, new Blob([`${json}\n`])],
    [weights, new Blob([new Uint8Array(headerBytes(sorted, metadata)), ...data])],
  ]);
}
