// The model card, README.md of an export: what it is made of, what it scored, how it was checked, and whose licence
// it has.

import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import { orElse } from "../core/errors.ts";
import { isDataPath } from "../data/readers/files.ts";
import type { RunReport } from "../evaluate/results.ts";
import type { PerplexityResult } from "../evaluate/window-plan.ts";
import { parseDatasetName, parseModelName } from "../hub/repo-id.ts";
import { describeQuantization } from "../model/blocks.ts";
import { countParameters, type OpenedModel } from "../model/opened.ts";
import { sourcesOf } from "../options/schema.ts";
import { addedParameters, isInserted } from "../train/groups.ts";
import { SILENT_LOSS } from "./model-folder.ts";
import { insertionsOf } from "../insertions/kinds.ts";
import { licenceOf, type Provenance } from "./provenance.ts";
import type { Target, Verification } from "./verify.ts";

/** A line of every card that is written here: only folders with it are ever overwritten. */
export const CARD_MARK = "<!-- written by `ssa convert` -->";

/** The text, beside the other files of `folder`, with the licence fields of the base's own card where there is one. */
export async function modelCard(
  opened: OpenedModel,
  provenance: Provenance,
  folder: string,
  title: string,
  target: Target,
  verification?: Verification,
): Promise<string> {
  const { base, report } = provenance;
  const { temperatures, quantized } = opened;
  const blocks = quantized && describeQuantization(quantized.spec);
  const since = quantized?.spec.method ? "" : "; what it scored is from before";
  const licence = await licenceOf(opened);
  const file = (await readdir(folder)).find((name) => /^licen[cs]e/i.test(name));
  if (licence.length === 0 && file) licence.push("license: other", `license_link: ${file}`);
  const values = licence.map((line) => line.replace(/^.*?:\s*/, "")).join(", ");
  const data = report ? sourcesOf(report.recipe) : [];
  const ids = data.flatMap(({ path }) => hubId(path, parseDatasetName) ?? []);
  const front = {
    base_model: base.name && hubId(base.name, parseModelName),
    datasets: ids.length > 0 && ids,
    library_name: libraries[target],
    pipeline_tag: "text-generation",
    tags: [
      ...(temperatures ? ["selective-self-attention"] : []),
      ...(opened.lora ? ["lora"] : []),
      target,
    ],
    "model-index": report && [{ name: title, results: [resultOf(report)] }],
  };
  // JSON is YAML.
  const fields = Object.entries(front).map(([key, value]) =>
    value ? `${key}: ${JSON.stringify(value)}` : [],
  );
  const lines = [
    "---",
    ...licence,
    ...fields.flat(),
    "---",
    CARD_MARK,
    `\n# ${title}\n`,
    ...description(opened, provenance),
    ...(blocks ? [`\nIts matrices are ${blocks}${since}.`] : []),
    ...(insertionsOf(opened).length > 0 ? ["", usage[target]] : []),
    ...(report ? [perplexity(report)] : []),
    ...(verification ? [`\n## Checked\n\n${verified(verification)}`] : []),
    "\n## Licence\n",
    file || values
      ? `The base model's: ${file ? `[${file}](${file})` : values}.`
      : "That of the base model, whose card was not at hand when this was written.",
  ];
  return `${lines.join("\n")}\n`;
}

/** As the hub's model index has it. */
function resultOf({ recipe, after }: RunReport) {
  const name = sourcesOf(recipe)
    .map(({ path }) => displayName(path))
    .join(", ");
  const dataset = { name, type: name };
  const metric = { type: "perplexity", value: after.perplexity, name: conventionOf(after) };
  return { task: { type: "text-generation" }, dataset, metrics: [metric] };
}

function description(opened: OpenedModel, provenance: Provenance): string[] {
  const { model, temperatures, lora, configJson } = opened;
  const { base, hasTrainedBase, folded = [], report } = provenance;
  // LoRA that a run has merged already is known from its recipe.
  const isMergedByRun = report?.recipe.final === "model" && report.recipe.tune.includes("lora");
  const isMerged = folded.includes("lora") || isMergedByRun;
  const name = base.name ? `\`${displayName(base.name)}\`` : "its base";
  const origin = `${name}${base.revision ? ` at revision \`${base.revision}\`` : ""}`;
  const others = report?.recipe.tune.filter((group) => !isInserted(group)) ?? [];
  const also = others.length > 0 ? ` (and ${others.join(", ")} trained as well)` : "";
  const merged = `LoRA (Hu et al., 2021), merged: W + s · B A, rounded to the weights' number format${also}`;
  if (!temperatures) {
    let change = "unchanged but for its format";
    if (report && hasTrainedBase) change = "fine-tuned without temperatures";
    if (isMerged) change = `with ${merged}`;
    if (folded.includes("temperatures"))
      change = `${isMerged ? `${change}, and ` : ""}with constant temperatures folded into its weights: any client runs it`;
    const added = addedParameters(opened, "lora").toLocaleString("en-US");
    if (lora) change = `with LoRA (Hu et al., 2021) of ${added} parameters, in PEFT's format`;
    return [`${origin} (${String(configJson["model_type"])}), ${change}.`];
  }
  const added = addedParameters(opened, "temperatures");
  const share = (100 * added) / countParameters(model);
  return [
    `${origin} with temperatures of Selective Self-Attention (Zhang et al., NeurIPS 2024, arXiv 2411.12892) on every`,
    `attention layer: ${added.toLocaleString("en-US")} new parameters, ${share.toPrecision(2)} % of the base's.`,
    ...(lora ? [`Beside them LoRA (Hu et al., 2021) in PEFT's format.`] : []),
    ...(isMerged ? [`And with ${merged}.`] : []),
    ...(hasTrainedBase && !isMerged ? ["Weights of the base were trained as well."] : []),
    ...(base.sha256 ? ["", `SHA-256 of the base's weights: \`${base.sha256}\`.`] : []),
  ];
}

const libraries = {
  safetensors: "ssa",
  transformers: "transformers",
  adapter: "ssa",
  onnx: "transformers.js",
} as const satisfies Record<Target, string>;

const usage = {
  safetensors: `> **Warning.** ${SILENT_LOSS}`,
  transformers: `The temperatures come with their code, \`modeling_ssa.py\`, for transformers 5 and PyTorch:

\`\`\`python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("/path/of/this/folder", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("/path/of/this/folder")
\`\`\`

> **Warning.** Without \`trust_remote_code=True\` transformers says no more than that it does not use the \`*.ssa.*\`
> tensors, and runs the base model.`,
  adapter: "Use: `ssa eval --model BASE --adapter DIR`, or `ssa convert` to a complete folder.",
  onnx: `The temperatures are part of the graph: \`@huggingface/transformers\` runs it as it is, in Node and in browsers.

\`\`\`js
import { pipeline } from "@huggingface/transformers";
const generator = await pipeline("text-generation", "/path/of/this/folder");
\`\`\``,
} as const satisfies Record<Target, string>;

const RECIPE_KEYS =
  /^(data|evalData|tune|steps|context|batchSize|gradientAccumulationSteps|learningRate|schedule|seed)$/;

/** A table, the change and the recipe. */
function perplexity({ recipe, before, after, delta }: RunReport): string {
  const [from, to] = delta.interval95?.map((value) => value.toFixed(2)) ?? [];
  const between = from ? `, 95 % interval ${from} to ${to} %` : "";
  const row = (when: string, { perplexity, lossNats }: PerplexityResult) =>
    `| ${when} | ${perplexity.toFixed(4)} | ${lossNats.toFixed(5)} |`;
  const shown = (value: unknown) =>
    typeof value === "string" ? displayName(value) : JSON.stringify(value);
  const settings = Object.entries(recipe)
    .filter(([key, value]) => RECIPE_KEYS.test(key) && value !== null)
    .map(([key, value]) => `- ${key}: ${shown(value)}`);
  return `
## Perplexity

| | perplexity | nats per token |
|---|---|---|
${row("before", before)}
${row("after", after)}

Change: ${delta.percent.toFixed(2)} %${between}. Measured on ${after.numTokens} tokens, ${conventionOf(after)},
data SHA-256 \`${after.dataSha256}\`.

## Recipe

${settings.join("\n")}`;
}

const LOGITS =
  "Run with @huggingface/transformers, with and without its cache and in a left-padded batch, and compared with the source";

function verified({ what, numValues, largest, relative }: Verification): string {
  const how =
    what === "logits" ? LOGITS : `All ${what} were read back and compared with the source`;
  const differences = `largest difference ${largest.toPrecision(3)}, relative ${relative.toPrecision(3)}`;
  const figure = largest === 0 ? "all equal" : differences;
  const values = what === "logits" ? what : "values";
  return `${how}: ${numValues.toLocaleString("en-US")} ${values}, ${figure}.`;
}

const conventionOf = ({ convention, context, stride }: PerplexityResult) =>
  `convention ${convention}, context ${context}, stride ${stride}`;

/** `org/name` on the hub, also for a short name; undefined for paths and embedded names. */
export function hubId(name: string, parse: (name: string) => { readonly id: string }) {
  // A path from elsewhere has none.
  const id = isDataPath(name) ? "" : orElse(() => parse(name).id, "");
  return id.includes("/") ? id : undefined;
}

/** A card is for others: a path of this machine says nothing to them but its last part. */
const displayName = (name: string) => (isDataPath(name) ? basename(name) : name);
