// The model card, README.md of an export: what it is made of, what it scored, how it was checked, and whose licence
// it has.

import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import { isDataPath } from "../data/readers/files.ts";
import type { PerplexityResult, RunReport } from "../evaluate/results.ts";
import { parseDatasetName, parseModelName } from "../hub/repo-id.ts";
import { countParameters, type OpenedModel } from "../model/model.ts";
import { addedParameters } from "../train/groups.ts";
import { SILENT_LOSS } from "./model-folder.ts";
import { licenceOf, type Provenance } from "./provenance.ts";
import { CARD_MARK } from "./staging.ts";
import type { Target, Verification } from "./verify.ts";

export interface CardOptions {
  /** Where the other files are. */
  readonly folder: string;
  readonly target: Target;
  readonly title: string;
  readonly verification: Verification;
}

/** The card's text, with the licence fields of the base's own card where there is one. */
export async function modelCard(
  opened: OpenedModel,
  provenance: Provenance,
  { folder, target, title, verification }: CardOptions,
): Promise<string> {
  const { base, report } = provenance;
  const licence = await licenceOf(opened);
  const file = (await readdir(folder)).find((name) => /^licen[cs]e/i.test(name));
  if (licence.length === 0 && file) licence.push("license: other", `license_link: ${file}`);
  const values = licence.map((line) => line.replace(/^.*?:\s*/, "")).join(", ");
  const baseId = base.name && hubId(base.name, (name) => parseModelName(name).id);
  const dataId = report && hubId(report.recipe.data, (name) => parseDatasetName(name).id);
  const lines = [
    "---",
    ...licence,
    ...(baseId ? [`base_model: ${quoted(baseId)}`] : []),
    ...(dataId ? ["datasets:", `  - ${quoted(dataId)}`] : []),
    `library_name: ${target === "onnx" ? "transformers.js" : "ssa"}`,
    "pipeline_tag: text-generation",
    "tags:",
    ...(opened.temperatures ? ["  - selective-self-attention"] : []),
    `  - ${target}`,
    ...(report ? [modelIndex(title, report)] : []),
    "---",
    CARD_MARK,
    `\n# ${title}\n`,
    ...description(opened, provenance),
    ...(opened.temperatures ? ["", usage[target]] : []),
    ...(report ? [perplexity(report)] : []),
    `\n## Checked\n\n${verified(verification)}`,
    "\n## Licence\n",
    file || values
      ? `The base model's: ${file ? `[${file}](${file})` : values}.`
      : "That of the base model, whose card was not at hand when this was written.",
  ];
  return `${lines.join("\n")}\n`;
}

const modelIndex = (title: string, { recipe, after }: RunReport) => `model-index:
  - name: ${quoted(title)}
    results:
      - task:
          type: text-generation
        dataset:
          name: ${quoted(displayName(recipe.data))}
          type: ${quoted(displayName(recipe.data))}
        metrics:
          - type: perplexity
            value: ${after.perplexity}
            name: ${quoted(conventionOf(after))}`;

function description(
  { model, temperatures, configJson }: OpenedModel,
  { base, hasTrainedBase, isFolded, report }: Provenance,
): string[] {
  const name = base.name ? `\`${displayName(base.name)}\`` : "its base";
  const origin = `${name}${base.revision ? ` at revision \`${base.revision}\`` : ""}`;
  if (!temperatures) {
    const isTuned = report && hasTrainedBase;
    const change = isFolded
      ? "with constant temperatures, which are folded into its weights: any client runs it"
      : isTuned
        ? "fine-tuned without temperatures"
        : "unchanged but for its format";
    return [`${origin} (${String(configJson["model_type"])}), ${change}.`];
  }
  const added = addedParameters(temperatures.values);
  const share = (100 * added) / countParameters(model);
  return [
    `${origin} with temperatures of Selective Self-Attention (Zhang et al., NeurIPS 2024, arXiv 2411.12892) on every`,
    `attention layer: ${added.toLocaleString("en-US")} new parameters, ${share.toPrecision(2)} % of the base's.`,
    ...(hasTrainedBase ? ["Weights of the base were trained as well."] : []),
    ...(base.sha256 ? ["", `SHA-256 of the base's weights: \`${base.sha256}\`.`] : []),
  ];
}

const usage: Record<Target, string> = {
  safetensors: `> **Warning.** ${SILENT_LOSS}`,
  adapter: "Use: `ssa eval --model BASE --adapter DIR`, or `ssa convert` to a complete folder.",
  onnx: `The temperatures are part of the graph: \`@huggingface/transformers\` runs it as it is, in Node and in browsers.

\`\`\`js
import { pipeline } from "@huggingface/transformers";
const generator = await pipeline("text-generation", "/path/of/this/folder");
\`\`\``,
};

const RECIPE_KEYS =
  /^(data|evalData|tune|steps|context|batchSize|gradientAccumulationSteps|learningRate|schedule|seed)$/;

/** A table, the change and the recipe. */
function perplexity({ recipe, before, after, delta }: RunReport): string {
  const [from, to] = delta.interval95?.map((value) => value.toFixed(2)) ?? [];
  const between = from ? `, 95 % interval ${from} to ${to} %` : "";
  const row = (when: string, { perplexity, lossNats }: PerplexityResult) =>
    `| ${when} | ${perplexity.toFixed(4)} | ${lossNats.toFixed(5)} |`;
  const settings = Object.entries(recipe)
    .filter(([key, value]) => RECIPE_KEYS.test(key) && value !== null)
    .map(([key, value]) => {
      return `- ${key}: ${typeof value === "string" ? displayName(value) : JSON.stringify(value)}`;
    });
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

const checks: Record<Verification["what"], readonly [how: string, values: string]> = {
  logits: [
    "Run with @huggingface/transformers, with and without its cache and in a left-padded batch, and compared with the source",
    "logits",
  ],
  weights: ["Every tensor was read back and compared with the source", "values"],
  temperatures: ["Every temperature was read back and compared with the source", "values"],
};

function verified({ what, numValues, largest, relative }: Verification): string {
  const [how, values] = checks[what];
  const differences = `largest difference ${largest.toPrecision(3)}, relative ${relative.toPrecision(3)}`;
  const figure = largest === 0 ? "all equal" : differences;
  return `${how}: ${numValues.toLocaleString("en-US")} ${values}, ${figure}.`;
}

const conventionOf = ({ convention, context, stride }: PerplexityResult) =>
  `convention ${convention}, context ${context}, stride ${stride}`;

/** `org/name` on the hub, also for a short name; undefined for paths and embedded names. */
function hubId(name: string, parse: (name: string) => string): string | undefined {
  if (isDataPath(name)) return undefined;
  try {
    const id = parse(name);
    return id.includes("/") ? id : undefined;
  } catch {
    return undefined; // a path from elsewhere
  }
}

/** A card is for others: a path of this machine says nothing to them but its last part. */
const displayName = (name: string) => (isDataPath(name) ? basename(name) : name);

const quoted = (value: string) => JSON.stringify(value);
