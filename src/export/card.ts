// The model card, README.md of an export: what it is made of, what it scored, how it was checked, and whose licence
// it has.

import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import type { PerplexityResult, RunReport } from "../evaluate/results.ts";
import { parseDatasetName, parseModelName } from "../hub/repo-id.ts";
import { countParameters, type OpenedModel } from "../model/model.ts";
import type { Recipe } from "../options/schema.ts";
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
  options: CardOptions,
): Promise<string> {
  const { report } = provenance;
  const licence = await licenceOf(opened);
  const file = (await readdir(options.folder)).find((name) => /^licen[cs]e/i.test(name));
  if (licence.length === 0 && file) licence.push("license: other", `license_link: ${file}`);
  const values = licence.map((line) => line.replace(/^.*?:\s*/, "")).join(", ");
  return `---
${frontMatter(opened, provenance, options, licence).join("\n")}
---
${CARD_MARK}

# ${options.title}

${description(opened, provenance, options.target).join("\n")}

${report ? perplexity(report) : ""}## Checked

${verified(options)}

## Licence

${
  file || values
    ? `The base model's: ${file ? `[${file}](${file})` : values}.`
    : "That of the base model, whose card was not at hand when this was written."
}
`;
}

function frontMatter(
  { temperatures }: OpenedModel,
  { base, report }: Provenance,
  { target, title }: CardOptions,
  licence: readonly string[],
): string[] {
  const data = report?.recipe.data ?? "unknown";
  const baseId = base.name && hubId(base.name, (name) => parseModelName(name).id);
  const dataId = hubId(data, (name) => parseDatasetName(name).id);
  const results = ({ perplexity, ...rest }: PerplexityResult) => `model-index:
  - name: ${quoted(title)}
    results:
      - task:
          type: text-generation
        dataset:
          name: ${quoted(displayName(data))}
          type: ${quoted(displayName(data))}
        metrics:
          - type: perplexity
            value: ${perplexity}
            name: ${quoted(conventionOf(rest))}`;
  return [
    ...licence,
    ...(baseId ? [`base_model: ${quoted(baseId)}`] : []),
    ...(dataId ? ["datasets:", `  - ${quoted(dataId)}`] : []),
    `library_name: ${target === "onnx" ? "transformers.js" : "ssa"}`,
    "pipeline_tag: text-generation",
    "tags:",
    ...(temperatures ? ["  - selective-self-attention"] : []),
    `  - ${target}`,
    ...(report ? [results(report.after)] : []),
  ];
}

function description(
  { model, temperatures, configJson }: OpenedModel,
  { base, hasTrainedBase, report }: Provenance,
  target: Target,
): string[] {
  const name = base.name ? `\`${displayName(base.name)}\`` : "its base";
  const origin = `${name}${base.revision ? ` at revision \`${base.revision}\`` : ""}`;
  if (!temperatures) {
    const isTuned = report && hasTrainedBase;
    const change = isTuned ? "fine-tuned without temperatures" : "unchanged but for its format";
    return [`${origin} (${String(configJson["model_type"])}), ${change}.`];
  }
  const added = addedParameters(temperatures.values);
  const share = (100 * added) / countParameters(model);
  return [
    `${origin} with temperatures of Selective Self-Attention (Zhang et al., NeurIPS 2024, arXiv 2411.12892) on every`,
    `attention layer: ${added.toLocaleString("en-US")} new parameters, ${share.toPrecision(2)} % of the base's.`,
    ...(hasTrainedBase ? ["Weights of the base were trained as well."] : []),
    ...(base.sha256 ? ["", `SHA-256 of the base's weights: \`${base.sha256}\`.`] : []),
    "",
    usage[target],
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

const recipeKeys: readonly (keyof Recipe)[] = [
  "data",
  "evalData",
  "tune",
  "steps",
  "context",
  "batchSize",
  "gradientAccumulationSteps",
  "learningRate",
  "schedule",
  "seed",
];

/** A table, the change and the recipe. */
function perplexity({ recipe, before, after, delta }: RunReport): string {
  const { interval95: interval, percent } = delta;
  const between = interval
    ? `, 95 % interval ${fixed(interval[0])} to ${fixed(interval[1])} %`
    : "";
  const row = (when: string, { perplexity, lossNats }: PerplexityResult) =>
    `| ${when} | ${perplexity.toFixed(4)} | ${lossNats.toFixed(5)} |`;
  const settings = recipeKeys
    .filter((key) => (recipe[key] ?? null) !== null)
    .map((key) => `- ${key}: ${oneLine(recipe[key])}`);
  return `## Perplexity

| | perplexity | nats per token |
|---|---|---|
${row("before", before)}
${row("after", after)}

Change: ${fixed(percent)} %${between}. Measured on ${after.numTokens} tokens, ${conventionOf(after)},
data SHA-256 \`${after.dataSha256}\`.

## Recipe

${settings.join("\n")}

`;
}

function verified({ verification }: CardOptions): string {
  const { what, numValues, largest, relative } = verification;
  const figure =
    largest === 0
      ? "all equal"
      : `largest difference ${largest.toPrecision(3)}, relative ${relative.toPrecision(3)}`;
  const how =
    what === "logits"
      ? "Run with @huggingface/transformers, with and without its cache and in a left-padded batch, and compared with the source"
      : `Every ${what === "weights" ? "tensor" : "temperature"} was read back and compared with the source`;
  const values = what === "logits" ? what : "values";
  return `${how}: ${numValues.toLocaleString("en-US")} ${values}, ${figure}.`;
}

const conventionOf = ({
  convention,
  context,
  stride,
}: Pick<PerplexityResult, "convention" | "context" | "stride">) =>
  `convention ${convention}, context ${context}, stride ${stride}`;

/** `org/name` on the hub, also for a short name; undefined for paths and embedded names. */
function hubId(name: string, parse: (name: string) => string): string | undefined {
  if (isPath(name)) return undefined;
  try {
    const id = parse(name);
    return id.includes("/") ? id : undefined;
  } catch {
    return undefined; // a path from elsewhere
  }
}

const isPath = (name: string) =>
  /^[./~\\]|^\w:\\|\.(txt|jsonl|parquet|bin)$/.test(name) || existsSync(name);

/** A card is for others: a path of this machine says nothing to them but its last part. */
const displayName = (name: string) => (isPath(name) ? basename(name) : name);

const fixed = (value: number) => value.toFixed(2);
const quoted = (value: string) => JSON.stringify(value);
const oneLine = (value: unknown) =>
  typeof value === "string" ? displayName(value) : JSON.stringify(value);
