// `ssa inspect`: what a model folder holds, from headers alone, or what its attention does with a text.

import { styleText } from "node:util";
import { UserError } from "../../src/core/errors.ts";
import { PROJECTIONS } from "../../src/nn/attention.ts";
import { flag, maybe, shared, text as words, wholeNumber } from "../../src/options/values.ts";
import type { Inspection, TextInspection } from "../../src/run/inspect.ts";
import { inspectModel, inspectText } from "../../src/run/inspect.ts";
import { defineCommand } from "../command.ts";
import type { Facts, Section } from "../console.ts";
import * as format from "../../src/core/format.ts";
import { places, print } from "../io.ts";

export const command = defineCommand({
  argument: "model",
  options: {
    model: shared.model,
    adapter: shared.adapter,
    refresh: shared.refresh,
    tensors: flag("list every tensor"),
    text: maybe(words("text"), "show each token's temperatures, and how far attention spreads"),
    layer: maybe(wholeNumber(0), "of --text, the layer (default: the mean over all)"),
    head: maybe(wholeNumber(0), "of --text, the head (default: the mean over all)"),
    device: shared.device,
    threads: shared.threads,
  },
  examples: `Examples:
  $ ssa inspect tiny-gpt2 --tensors
  $ ssa inspect checkpoints/mine-1/final --text "Call me Ishmael." --layer 3`,
  async run({ model, adapter, refresh, json, tensors, text, ...how }, io) {
    if (text !== undefined) {
      const seen = await inspectText(model, text, { ...places(io, refresh), adapter, ...how });
      return print(io, json, seen, () => describeText(seen));
    }
    if (how.layer !== undefined || how.head !== undefined)
      throw new UserError("--layer and --head are of a text", { hint: "give one: --text" });
    const inspection = await inspectModel(model, { ...places(io, refresh), adapter });
    print(io, json, inspection, () => describe(inspection, tensors));
  },
});

function describe(model: Inspection, listTensors: boolean): Section[] {
  const { config, parameters, temperatures, lora } = model;
  const { total, groups } = parameters;
  const [exact, short] = [format.integer(total), format.parameters(total)];
  const rows = Object.entries(groups).map(([name, count]) => [`  ${name}`, format.integer(count)]);
  const about = (of: Inspection["lora"]) =>
    of && `${format.integer(of.parameters)} (${format.share(of.share)}), ${of.description}`;
  const dtypes = Object.entries(model.dtypes).map(([dtype, count]) => `${dtype} × ${count}`);
  const facts = {
    architecture: model.modelType,
    layers: `${config.numLayers}, hidden size ${config.hiddenSize}`,
    heads: `${config.numHeads} of size ${config.headDim}`,
    "key-value heads": String(config.numKeyValueHeads),
    vocabulary: format.integer(config.vocabSize),
    context: `${format.integer(config.maxPositions)} tokens`,
    parameters: exact === short ? exact : `${exact} (${short})`,
    ...(Object.fromEntries(rows) as Facts),
    "stored as": dtypes.join(", "),
    files: `${model.files.length}, ${format.bytes(model.sizeBytes)}`,
    tokenizer: model.tokenizer ?? "none",
    temperatures: about(temperatures) ?? "none",
    LoRA: about(lora),
  };
  if (!listTensors) return [facts];
  const tensors = model.tensors.map(({ name, dtype, shape }) => [name, dtype, shape.join(" × ")]);
  return [facts, [["tensor", "type", "shape"], tensors]];
}

/** From far below 1 to far above. */
const COLORS = ["blue", "cyan", "reset", "yellow", "red"] as const;

function describeText({ layer, head, tokens, entropy }: TextInspection): Section[] {
  const used = PROJECTIONS.filter((projection) => tokens[0]!.tau[projection] !== undefined);
  const pictures = used.map((projection) => {
    const farthest = Math.max(...tokens.map(({ tau }) => Math.abs(tau[projection]! - 1)), 1e-9);
    const colored = tokens.map(({ text, tau }) => {
      const level = Math.round(2 + (2 * (tau[projection]! - 1)) / farthest);
      return level === 2 ? text : styleText(COLORS[level]!, text);
    });
    // Without colours they would be the bare text.
    if (styleText("blue", "x") === "x") return "";
    const scale = `blue 1 - ${farthest.toFixed(2)}, red 1 + ${farthest.toFixed(2)}`;
    return `${projection} τ, layer ${layer}, head ${head}: ${scale}\n${colored.join("")}`;
  });
  const digits = (value: number | null) => value?.toFixed(3) ?? "";
  const rows = tokens.map(({ text, nats, tau }) => [
    JSON.stringify(text),
    digits(nats),
    ...used.map((projection) => digits(tau[projection]!)),
  ]);
  const spread = entropy.map(({ layer, before, after }) => {
    const change = before === null ? null : after - before;
    return [String(layer), ...[after, before, change].map(digits)];
  });
  return [
    ...pictures,
    [["token", "nats", ...used.map((projection) => `${projection} τ`)], rows],
    "entropy of attention, nats, mean over heads and tokens; without what is inserted",
    [["layer", "entropy", "without", "change"], spread],
  ];
}
