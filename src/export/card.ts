// The model card, README.md of an export: what it is made of, what it scored, how it was checked, and whose licence
// it has.

import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import { countParameters } from "../model/open.ts";
import { parseDatasetName, parseModelName } from "../hub/repo-id.ts";
import { SILENT_LOSS } from "./model-folder.ts";
import { licenceOf, record, type Source } from "./source.ts";
import { CARD_MARK } from "./staging.ts";
import type { Verification } from "./verify.ts";

export interface CardOptions {
  /** Where the other files are. */
  readonly folder: string;
  readonly target: "safetensors" | "adapter" | "onnx";
  readonly title: string;
  readonly verification: Verification;
}

/** The card's text, with the licence fields of the base's own card where there is one. */
export async function modelCard(source: Source, options: CardOptions): Promise<string> {
  const licence = await licenceOf(source.opened);
  const file = (await readdir(options.folder)).find((name) => /^licen[cs]e/i.test(name));
  if (licence.length === 0 && file) licence.push("license: other", `license_link: ${file}`);
  return `---
${frontMatter(source, options, licence).join("\n")}
---
${CARD_MARK}

# ${options.title}

${description(source, options.target).join("\n")}

${perplexity(source)}## Checked

${verified(options)}

## Licence

${file ? `The base model's: [${file}](${file}).` : licenceText(licence)}
`;
}

function licenceText(lines: readonly string[]): string {
  return lines.length > 0
    ? `The base model's: ${lines.map((line) => line.replace(/^.*?:\s*/, "")).join(", ")}.`
    : "That of the base model, whose card was not at hand when this was written.";
}

function frontMatter(
  { opened, base, report }: Source,
  { target, title }: CardOptions,
  licence: readonly string[],
): string[] {
  const { recipe, after } = partsOf(report);
  const data = typeof recipe["data"] === "string" ? recipe["data"] : "unknown";
  const baseId = base.name && hubId(base.name, (name) => parseModelName(name).id);
  const dataId = hubId(data, (name) => parseDatasetName(name).id);
  const results = `model-index:
  - name: ${quoted(title)}
    results:
      - task:
          type: text-generation
        dataset:
          name: ${quoted(displayName(data))}
          type: ${quoted(displayName(data))}
        metrics:
          - type: perplexity
            value: ${String(after["perplexity"])}
            name: ${quoted(conventionOf(after))}`;
  return [
    ...licence,
    ...(baseId ? [`base_model: ${quoted(baseId)}`] : []),
    ...(dataId ? ["datasets:", `  - ${quoted(dataId)}`] : []),
    `library_name: ${target === "onnx" ? "transformers.js" : "ssa"}`,
    "pipeline_tag: text-generation",
    "tags:",
    ...(opened.temperatures ? ["  - selective-self-attention"] : []),
    `  - ${target}`,
    ...(typeof after["perplexity"] === "number" ? [results] : []),
  ];
}

function description(
  { opened, base, hasTrainedBase, isFolded, report }: Source,
  target: CardOptions["target"],
): string[] {
  const { model, temperatures, configJson } = opened;
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
  const added = [...temperatures.values.values()].reduce((sum, { length }) => sum + length, 0);
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

const usage = {
  safetensors: `> **Warning.** ${SILENT_LOSS}`,
  adapter: "Use: `ssa eval --model BASE --adapter DIR`, or `ssa convert` to a complete folder.",
  onnx: `The temperatures are part of the graph: \`@huggingface/transformers\` runs it as it is, in Node and in browsers.

\`\`\`js
import { pipeline } from "@huggingface/transformers";
const generator = await pipeline("text-generation", "/path/of/this/folder");
\`\`\``,
} as const;

const recipeKeys =
  "data evalData tune steps context batchSize gradientAccumulationSteps learningRate schedule seed";

/** A table, the change and the recipe; empty where the source is of no run. */
function perplexity({ report }: Source): string {
  const { recipe, before, after, delta } = partsOf(report);
  if (typeof before["perplexity"] !== "number" || typeof after["perplexity"] !== "number")
    return "";
  const interval = delta["interval95"];
  const between = Array.isArray(interval)
    ? `, 95 % interval ${interval.map((value) => Number(value).toFixed(2)).join(" to ")} %`
    : "";
  const row = (when: string, { perplexity, lossNats }: typeof before) =>
    `| ${when} | ${fixed(perplexity, 4)} | ${fixed(lossNats, 5)} |`;
  const settings = recipeKeys
    .split(" ")
    .filter((key) => recipe[key] !== undefined && recipe[key] !== null)
    .map((key) => `- ${key}: ${oneLine(recipe[key])}`);
  return `## Perplexity

| | perplexity | nats per token |
|---|---|---|
${row("before", before)}
${row("after", after)}

Change: ${fixed(delta["percent"], 2)} %${between}. Measured on ${String(after["numTokens"])} tokens, ${conventionOf(after)},
data SHA-256 \`${String(after["dataSha256"])}\`.

## Recipe

${settings.join("\n")}

`;
}

function verified({ verification, target }: CardOptions): string {
  const { what, numValues, largest, relative } = verification;
  const figure =
    largest === 0
      ? "all equal"
      : `largest difference ${largest.toPrecision(3)}, relative ${relative.toPrecision(3)}`;
  const how = {
    logits:
      "Run with @huggingface/transformers, with and without its cache and in a left-padded batch, and compared with the source",
    weights: "Every tensor was read back and compared with the source",
    temperatures: "Every temperature was read back and compared with the source",
  }[what];
  return `${how}: ${numValues.toLocaleString("en-US")} ${target === "onnx" ? "logits" : "values"}, ${figure}.`;
}

function partsOf({ recipe, before, after, delta }: NonNullable<Source["report"]> = {}) {
  return {
    recipe: record(recipe),
    before: record(before),
    after: record(after),
    delta: record(delta),
  };
}

const conventionOf = ({ convention, context, stride }: Readonly<Record<string, unknown>>) =>
  `convention ${String(convention)}, context ${String(context)}, stride ${String(stride)}`;

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

const fixed = (value: unknown, digits: number) => Number(value).toFixed(digits);
const quoted = (value: string) => JSON.stringify(value);
const oneLine = (value: unknown) =>
  typeof value === "string" ? displayName(value) : JSON.stringify(value);
