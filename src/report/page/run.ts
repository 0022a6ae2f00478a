// The page of one run.

import * as format from "../../core/format.ts";
import type { TokenChange } from "../../evaluate/details.ts";
import type { RunReport } from "../../evaluate/results.ts";
import type { RunPage } from "../data.ts";
import { element, legend, section, table, tile, visible } from "./dom.ts";
import { passageSection } from "./passage.ts";
import * as plots from "./plots.ts";

type Recipe = RunPage["recipe"];

const change = (value: number) => format.percent(value, { isChange: true });
const signed = (value: number) => `${value < 0 ? "" : "+"}${value.toFixed(2)}`;
const count = format.integer;

/** What a recipe trains, in words. */
const GROUPS: Readonly<Record<Recipe["tune"][number], string>> = {
  temperatures: "attention temperatures",
  lora: "LoRA matrices",
  norms: "norms",
  biases: "biases",
  all: "all weights",
};

export function runPage(page: RunPage): Node[] {
  const { recipe, report, curves, details } = page;
  const shown = report ? [outcome(page, report)] : [element("p", {}, progressOf(page))];
  return [
    element("h1", {}, page.name),
    element("p", { class: "lead" }, storyOf(page)),
    ...shown,
    curves.points.length > 0 && curvesSection(page),
    details?.places && placesSection(details.places),
    page.changes && changesSection(page.changes),
    ...temperatureSections(page),
    details?.passage && passageSection(details.passage),
    details?.gained &&
      tokensSection("Tokens that gained most", details.gained, details.sampledTokens),
    details?.lost && tokensSection("Tokens that lost most", details.lost, details.sampledTokens),
    section(
      "Recipe",
      "Every option, defaults too, as recipe.yaml has it.",
      element("pre", {}, page.recipeText),
    ),
    machineSection(page),
    section(
      "Again",
      `With the same seed (${recipe.seed}) on a processor the losses are the same, bit for bit; on a GPU nearly.`,
      element(
        "pre",
        {},
        `ssa finetune --recipe ${quoted(`${page.folder}/recipe.yaml`)} --out NEW_FOLDER`,
      ),
    ),
  ].filter((node) => node instanceof Node);
}

const quoted = (text: string) =>
  /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

function storyOf({ recipe, report }: RunPage): string {
  const names = [recipe.data]
    .flat()
    .map((source) => (typeof source === "string" ? source : source.path));
  const groups = recipe.tune.map((group) => GROUPS[group]).join(" and ");
  const what = `${groups[0]!.toUpperCase()}${groups.slice(1)}`;
  const { trained, base } = report?.parameters ?? {};
  const [values, of] = [
    trained && ` (${count(trained)} values)`,
    base && ` (${format.parameters(base)} parameters)`,
  ];
  const start = `${recipe.base}${recipe.init === "random" ? " with random weights" : ""}`;
  const steps = count(report?.steps ?? recipe.steps);
  return `${what}${values || ""} of ${start}${of || ""} ${report ? "were trained" : "train"} for ${steps} steps on ${names.join(", ")}.`;
}

const progressOf = ({ curves, recipe }: RunPage) =>
  `Not finished: step ${curves.points.at(-1)?.step ?? 0} of ${recipe.steps}.`;

function outcome({ intervals }: RunPage, { before, after, delta }: RunReport) {
  const [low, high] = delta.interval95 ?? [];
  const isSure = low !== undefined && low * high! > 0;
  const kind = isSure ? (delta.percent < 0 ? "good" : "bad") : "";
  const range =
    low === undefined
      ? "one window: no interval"
      : `95 % interval ${change(low)} to ${change(high!)}`;
  const rows = Object.entries({ before, after }).map(([name, { perplexity }]) => {
    return { name, value: perplexity, interval: intervals?.[name as "before" | "after"] ?? null };
  });
  const windows =
    after.windows === after.windowsTotal
      ? count(after.windows)
      : `an even ${count(after.windows)} of ${count(after.windowsTotal)}`;
  return section(
    "Perplexity",
    "The two intervals say how far other text of this kind would differ, and may overlap; the change is of the same windows before and after, so that it is known far better. An interval of the change without zero is more than chance. It says nothing of what another seed would give.",
    element(
      "div",
      { class: "tiles" },
      tile(format.perplexity(before.perplexity), "before"),
      tile(format.perplexity(after.perplexity), "after"),
      tile(change(delta.percent), range, kind),
    ),
    plots.beforeAfter(rows),
    element(
      "p",
      {},
      `${count(after.numTokens)} tokens in ${windows} windows of ${count(after.context)}.`,
    ),
  );
}

function curvesSection({ curves }: RunPage) {
  const { stepsPerPoint, evaluations } = curves;
  const each = stepsPerPoint > 1 ? ` A point is the mean of ${stepsPerPoint} steps.` : "";
  return section(
    "Training",
    `Pale: as it was; strong: its running mean. The gradient's norm is that before clipping.${each}`,
    legend(
      ["var(--accent)", "training"],
      ...(evaluations.length > 0 ? [["var(--other)", "held-out text"] as const] : []),
    ),
    plots.curve(curves, "loss", "Loss, nats per token"),
    element(
      "div",
      { class: "grid" },
      plots.curve(curves, "gradNorm", "Norm of the gradient"),
      plots.curve(curves, "learningRate", "Learning rate"),
    ),
  );
}

const placesSection = (groups: Parameters<typeof plots.places>[0]) =>
  section(
    "By place in the window",
    "A token late in its window has more text before it. Where the lines part to the right, what was learnt helps with long contexts; where they part to the left, with short ones. Both axes are logarithmic.",
    legend(["var(--soft)", "before"], ["var(--accent)", "after"]),
    plots.places(groups),
  );

function changesSection(changes: NonNullable<RunPage["changes"]>) {
  const { windows, improved } = changes;
  return section(
    "By window",
    "A lean, whole shift is a gain everywhere; a long tail is one of a few texts. The outermost bars hold what lies farther out.",
    element("p", {}, `${count(improved)} of ${count(windows)} windows improved.`),
    plots.histogram(changes),
  );
}

function temperatureSections({ details }: RunPage) {
  const { heads = [] } = details ?? {};
  const projections = (["query", "key", "value"] as const).filter((name) =>
    heads.some(({ projection }) => projection === name),
  );
  return projections.map((name) => {
    const of = heads.filter(({ projection }) => projection === name);
    return section(
      `Temperatures of the ${name}`,
      name === "value"
        ? "τ scales what a token gives to others: below 1 (blue) it is heard less. A wide spread: the head tells tokens apart."
        : "τ scales the logits of attention: above 1 (orange) it is sharper, on fewer tokens; below 1 (blue) flatter. A wide spread: the head tells tokens apart.",
      element(
        "div",
        { class: "grid" },
        plots.temperatures(of, "mean", "Mean τ over tokens"),
        plots.temperatures(of, "deviation", "Standard deviation of τ over tokens"),
      ),
    );
  });
}

function tokensSection(title: string, tokens: readonly TokenChange[], sampled = 0) {
  if (tokens.length === 0) return null;
  const rows = tokens.map(({ before, text, after, place, nats }) => [
    // A token may be a part of a letter only.
    element(
      "span",
      {},
      visible(before).trimStart(),
      element("mark", {}, visible(text) || "▫"),
      visible(after),
    ),
    signed(nats[1] - nats[0]),
    ...nats.map((value) => value.toFixed(2)),
    count(place),
  ]);
  return section(
    title,
    `The loss of single tokens, nats, among ${count(sampled)} of an even sample of windows. Single tokens are noisy: look for what they have in common.`,
    table(
      title,
      [
        { title: "token in its text", kind: "text" },
        ...["change", "before", "after", "place"].map(
          (title) => ({ title, kind: "number" }) as const,
        ),
      ],
      rows,
    ),
  );
}

function machineSection({ report, details }: RunPage) {
  if (!report) return null;
  const facts = {
    device: report.device,
    ...details?.machine,
    speed: format.rate(report.tokensPerSecond),
    time: format.duration(report.elapsedSeconds),
    "peak memory": format.bytes(report.peakRssBytes),
    "batch size": report.chosen && String(report.chosen.batchSize),
    precision: report.chosen?.precision,
  };
  const rows = Object.entries(facts).flatMap(([name, value]) => (value ? [[name, value]] : []));
  return section("Machine", "", table("Machine", [{ title: "what" }, { title: "value" }], rows));
}
