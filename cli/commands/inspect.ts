// `ssa inspect`: what a model folder holds, from headers alone.

import type { Command } from "commander";
import { inspectModel, type Inspection } from "../../src/run/inspect.ts";
import { formatBytes, formatInteger, formatParameters, table } from "../console.ts";
import type { CommandIo } from "../io.ts";
import { findModel, hubOptions } from "../models.ts";

export function inspectCommand(program: Command, io: CommandIo): void {
  program
    .command("inspect")
    .description("show a model's architecture, parameters, tensors and temperatures")
    .argument("<model>", "a model folder, a Hugging Face id[@revision] or an embedded name")
    .option("--json", "print one JSON document")
    .option("--tensors", "list every tensor")
    .addHelpText("after", "\nExample:\n  $ ssa inspect tiny-gpt2 --tensors")
    .action(async (name: string, options: { json?: boolean; tensors?: boolean }) => {
      const find = (model: string) => findModel(model, io, hubOptions(io));
      const inspection = await inspectModel(await find(name), {
        resolveBase: (base, revision) => find(revision ? `${base}@${revision}` : base),
      });
      if (options.json) io.stdout.write(`${JSON.stringify(inspection, null, 2)}\n`);
      else io.stdout.write(`${describe(inspection, options.tensors ?? false, io.columns)}\n`);
    });
}

function describe(model: Inspection, listTensors: boolean, columns: number): string {
  const { config, parameters, temperatures } = model;
  const rows = [
    ["architecture", model.modelType],
    [
      "layers",
      `${config.numLayers} of ${config.hiddenSize}, ${config.numHeads} heads of ${config.headDim}`,
    ],
    ["key-value heads", String(config.numKeyValueHeads)],
    ["vocabulary", formatInteger(config.vocabSize)],
    ["context", `${formatInteger(config.maxPositions)} tokens`],
    ["parameters", parametersText(parameters.total)],
    ...Object.entries(parameters.groups).map(([group, count]) => [
      `  ${group}`,
      formatInteger(count),
    ]),
    [
      "stored as",
      Object.entries(model.dtypes)
        .map(([dtype, n]) => `${dtype} × ${n}`)
        .join(", "),
    ],
    ["files", `${model.files.length}, ${formatBytes(model.sizeBytes)}`],
    ["tokenizer", model.tokenizer ?? "none"],
    ["temperatures", temperatures ? describeTemperatures(temperatures) : "none"],
  ];
  if (!listTensors) return table([], rows, columns);
  const tensors = model.tensors.map(({ name, dtype, shape }) => [name, dtype, shape.join(" × ")]);
  return `${table([], rows, columns)}\n\n${table(["tensor", "type", "shape"], tensors, columns)}`;
}

function parametersText(count: number): string {
  const [exact, short] = [formatInteger(count), formatParameters(count)];
  return exact === short ? exact : `${exact} (${short})`;
}

function describeTemperatures({
  parameters,
  share,
  description,
}: NonNullable<Inspection["temperatures"]>) {
  return `${formatInteger(parameters)} (${(100 * share).toFixed(4)} %), ${description}`;
}
