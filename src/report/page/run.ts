// The page of one run.

import * as format from "../../core/format.ts";
import type { TokenChange } from "../../evaluate/details.ts";
import type { RunReport } from "../../evaluate/results.ts";
import { studentT975 } from "../../evaluate/statistics.ts";
import { describeFinal, describeQuantization } from "../../model/blocks.ts";
import type { RunDetails, RunPage } from "../data.ts";
import { element, section, table } from "./dom.ts";
import { attentionSection, passageSection } from "./passage.ts";
import * as plots from "./plots.ts";

const { change, integer: count } = format;
const grid = (...figures: readonly Node[]) => element("div", { class: "grid" }, ...figures);

export function runPage(page: RunPage): readonly (Node | undefined)[] {
  const { recipe, report, details, changes, curves, command } = page;
  const { heads = [], gained = [], lost = [], sampledTokens = 0 } = details ?? {};
  const tables = { "Tokens that gained most": gained, "Tokens that lost most": lost };
  return [
    element("p", { class: "lead" }, storyOf(page)),
    report && outcome(report, recipe.final),
    section(
      "Training",
      `Pale: ${curves.stepsPerPoint > 1 ? `means of ${curves.stepsPerPoint} steps` : "each step"}; strong: the running mean; dots: held-out text. The gradient's norm is that before clipping.`,
      plots.curve("Loss, nats per token, by step", curves, "loss"),
      grid(
        plots.curve("Norm of the gradient", curves, "gradNorm"),
        plots.curve("Learning rate", curves, "learningRate"),
      ),
    ),
    details?.places &&
      section(
        "By place in the window",
        "Grey: before, blue: after. A token late in its window has more text before it: where the lines part to the right, long contexts gain.",
        plots.places(details.places),
      ),
    changes &&
      section(
        "By window",
        "One narrow heap left of zero is a gain everywhere, a long tail that of a few texts.",
        plots.histogram(changes),
      ),
    ...(["query", "key", "value"] as const).map((projection) => {
      const of = heads.filter((each) => each.projection === projection);
      return of.length > 0 ? temperatures(projection, of) : undefined;
    }),
    details?.passage && passageSection(details.passage),
    details?.attention && attentionSection(details.attention),
    ...Object.entries(tables).map(([title, tokens]) => {
      const how = `Nats of single tokens, of ${count(sampledTokens)} in an even sample of windows: noisy, so look for what they have in common.`;
      const header = ["token in its text", "change", "after", "place"];
      return tokens.length > 0
        ? section(title, how, table(title, header, tokens.map(tokenRow)))
        : undefined;
    }),
    section("Recipe", "Every option, defaults too.", element("pre", {}, page.recipeText)),
    report && machine(report, details),
    section(
      "Again",
      `The same seed (${recipe.seed}) gives the same losses, bit for bit on a processor.`,
      element("pre", {}, command),
    ),
  ];
}

function storyOf({ recipe, report, sources, curves }: RunPage): string {
  const { trained } = report?.parameters ?? {};
  const what = `${recipe.tune.join(" and ")}${trained ? ` (${count(trained)} values)` : ""}`;
  const base = `${recipe.base}${recipe.init === "random" ? ", from random weights" : ""}`;
  const on = `${what} of ${base} on ${sources.join(", ")}`;
  if (report) return `Trained ${on} for ${count(report.steps)} steps.`;
  const step = count(curves.points.at(-1)?.step ?? 0);
  return `Not finished: trains ${on}, step ${step} of ${count(recipe.steps)}.`;
}

type Outcome = Pick<RunReport, "before" | "after" | "delta" | "quantized">;

/** Perplexity before and after, wherever they were measured. */
export function outcome({ before, after, delta, quantized }: Outcome, final?: string) {
  const { percent, interval95 } = delta;
  const isSure = interval95 && interval95[0] * interval95[1] > 0;
  const tone = isSure ? (percent < 0 ? "good" : "bad") : "";
  const range = interval95?.map(change).join(" to ") ?? "none of one window";
  const [from, to] = [before, after].map(({ perplexity }) => format.perplexity(perplexity));
  const original = quantized?.original && { original: quantized.original };
  const rows = Object.entries({ ...original, before, after }).map(([name, result]) => {
    const { lossNats, standardError, windows, perplexity: value } = result;
    if (standardError === null) return { name, value };
    const margin = studentT975(windows - 1) * standardError;
    return { name, value, interval: [-margin, margin].map((by) => Math.exp(lossNats + by)) };
  });
  const windows = `${count(after.windows)} of ${count(after.windowsTotal)} windows`;
  return section(
    "Perplexity",
    "The lines may overlap: they are of other text. The change is of the same windows before and after; an interval without zero is more than chance, but says nothing of other seeds.",
    element("p", { class: `large ${tone}` }, `${from} → ${to}: ${change(percent)}`),
    element("p", {}, `95 % interval of the change: ${range}.`),
    plots.intervals("Perplexity with 95 % intervals", rows),
    quantized && element("p", {}, quantizedWords(quantized, final)),
    `${count(after.numTokens)} tokens in ${windows} of ${count(after.context)}.`,
  );
}

function quantizedWords(of: NonNullable<RunReport["quantized"]>, final?: string): string {
  const was = of.original && `; as it was stored ${format.perplexity(of.original.perplexity)}`;
  const words = `Before and after are of the base in ${describeQuantization(of)}${was ?? ""}.`;
  return final === "model" ? `${words} ${describeFinal(of)}.` : words;
}

const temperatures = (projection: string, of: RunDetails["heads"]) =>
  section(
    `Temperatures of the ${projection}`,
    projection === "value"
      ? "Below 1 (blue) a token is heard less. A wide spread: the head tells tokens apart."
      : "Above 1 (orange) attention is sharper, below (blue) flatter. A wide spread: the head tells tokens apart.",
    grid(
      plots.temperatures("Mean τ by layer and head", of, "mean"),
      plots.temperatures("Standard deviation of τ over tokens", of, "deviation"),
    ),
  );

function tokenRow({ before, text, after, place, nats: [from, to] }: TokenChange) {
  const visible = (text: string) => text.replaceAll("\n", "⏎");
  // A token may be a part of a letter only.
  const mark = element("mark", {}, visible(text) || "▫");
  const context = [visible(before).trimStart(), mark, visible(after)];
  const by = `${to < from ? "" : "+"}${(to - from).toFixed(2)}`;
  return [element("span", { class: "text" }, ...context), by, to.toFixed(2), count(place)];
}

function machine({ chosen, ...report }: RunReport, details: RunDetails | undefined) {
  const facts: Readonly<Record<string, string>> = {
    device: report.device,
    ...details?.machine,
    speed: format.rate(report.tokensPerSecond),
    time: format.duration(report.elapsedSeconds),
    "peak memory": format.bytes(report.peakRssBytes),
    ...(chosen && { "batch size": String(chosen.batchSize), precision: chosen.precision }),
  };
  return section("Machine", "", table("Machine", ["what", "value"], Object.entries(facts)));
}
