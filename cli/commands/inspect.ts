// `ssa inspect`: what a model folder holds, from headers alone.

import { opening } from "../../src/model/places.ts";
import { flag, shared } from "../../src/options/values.ts";
import { inspectModel, type Inspection } from "../../src/run/inspect.ts";
import { defineCommand } from "../command.ts";
import { facts, table } from "../console.ts";
import * as format from "../format.ts";
import { places, print } from "../io.ts";

export const command = defineCommand({
  argument: "model",
  options: {
    model: shared.model,
    adapter: shared.adapter,
    refresh: shared.refresh,
    json: shared.json,
    tensors: flag("list every tensor"),
  },
  examples: "Example:\n  $ ssa inspect tiny-gpt2 --tensors",
  async run({ model, adapter, refresh, json, tensors }, io) {
    const inspection = await inspectModel(model, { ...opening(places(io, refresh)), adapter });
    print(io, json, inspection, () => describe(inspection, tensors, io.columns));
  },
});

function describe(model: Inspection, listTensors: boolean, columns: number): string {
  const { config, parameters, temperatures, lora } = model;
  const [exact, short] = [format.integer, format.parameters].map((format) =>
    format(parameters.total),
  );
  const groups = Object.entries(parameters.groups).map(
    ([group, count]) => [`  ${group}`, format.integer(count)] as const,
  );
  const dtypes = Object.entries(model.dtypes).map(([dtype, count]) => `${dtype} × ${count}`);
  const text = facts(
    {
      architecture: model.modelType,
      layers: `${config.numLayers} of ${config.hiddenSize}, ${config.numHeads} heads of ${config.headDim}`,
      "key-value heads": String(config.numKeyValueHeads),
      vocabulary: format.integer(config.vocabSize),
      context: `${format.integer(config.maxPositions)} tokens`,
      parameters: exact === short ? exact : `${exact} (${short})`,
      ...Object.fromEntries(groups),
      "stored as": dtypes.join(", "),
      files: `${model.files.length}, ${format.bytes(model.sizeBytes)}`,
      tokenizer: model.tokenizer ?? "none",
      temperatures: temperatures
        ? `${format.integer(temperatures.parameters)} (${format.share(temperatures.share)}), ${temperatures.description}`
        : "none",
      LoRA:
        lora &&
        `${format.integer(lora.parameters)} (${format.share(lora.share)}), ${lora.description}`,
    },
    columns,
  );
  if (!listTensors) return text;
  const tensors = model.tensors.map(({ name, dtype, shape }) => [name, dtype, shape.join(" × ")]);
  return `${text}\n\n${table(["tensor", "type", "shape"], tensors, columns)}`;
}
