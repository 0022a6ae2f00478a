// A run as text for people: its plan, what is about to happen, its result, and what can be done with that; and what it
// tells on stderr meanwhile: a progress line and sentences, or JSON lines (pino) for machines.

import { join } from "node:path";
import { styleText } from "node:util";
import { pino } from "pino";
import type { RunReport } from "../src/evaluate/results.ts";
import { runFiles } from "../src/files/names.ts";
import { insertionsOf } from "../src/insertions/kinds.ts";
import { isRecord } from "../src/core/json.ts";
import { describeFinal, describeQuantization } from "../src/model/blocks.ts";
import { quantizeOptions, rowOptions } from "../src/options/common.ts";
import { flagName, oneOf, optionsOf, preset } from "../src/options/values.ts";
import type { RunPlan } from "../src/run/fit.ts";
import { sequencesOf, sourcesOf } from "../src/options/schema.ts";
import { type Prepared, sourceFacts } from "../src/run/prepare.ts";
import type { RunEvent } from "../src/run/work.ts";
import { type Facts, progress, type Section } from "./console.ts";
import * as format from "../src/core/format.ts";
import { counted } from "../src/core/format.ts";
import type { CommandIo } from "./io.ts";

const MEMORY: Readonly<Record<keyof RunPlan["memoryBytes"], string>> = {
  program: "with the data and the engine",
  weights: "mapped from their file",
  trained: "values, moments and gradients of what trains",
  training: "activations held for the backward pass",
  scoring: "activations",
};

/** What a run is about to do. */
export function runFacts(run: Prepared): Facts {
  const { opened, parameters, context, reportPlan, sources, trainTokens } = run;
  const { tune, steps } = run.recipe;
  const { base, added, trained } = parameters;
  const perStep = format.integer(sequencesOf(run.recipe) * context);
  const share = format.share(added / base);
  const inserted = insertionsOf(opened).flatMap(([, of]) => of.insertion.describe(opened.model));
  const rows = inserted.map(({ place, form, extent, parameters }) => {
    return [`  ${place}`, `${form}, ${extent}: ${format.integer(parameters)}`] as const;
  });
  const quantized = opened.quantized && describeQuantization(opened.quantized.spec);
  return {
    ...(quantized && { "base in": quantized }),
    training: `${tune.join(" + ")}: ${counted(trained, "parameter")}`,
    new: added > 0 ? `${counted(added, "parameter")}, ${share} of the base` : null,
    ...Object.fromEntries(rows),
    data: `${counted(trainTokens, "token")}; ${counted(steps, "step")} of ${perStep}`,
    ...sourceRows(sourceFacts(run)),
    ...Object.assign({}, ...sources.map(packingFacts)),
    "held out": `${counted(reportPlan.windows.length, "window")} of ${context} tokens`,
  };
}

type Sources = Prepared["sources"];
const percent = (share: number) => `${Number((100 * share).toPrecision(3))} %`;

/** How a source's texts lie in sequences; of one that is cut there is nothing to say. */
function packingFacts({ training }: Sources[number], i: number, { length }: Sources): Facts {
  const before = length === 1 ? "  " : `  ${i + 1}. `;
  const { packing, texts, rows, padding, leftOut, longer, split } = training.facts;
  if (packing === "stream" && texts === 1) return {};
  const each = longer.first.map(({ text, tokens }) => `${text} (${format.integer(tokens)})`);
  const named = each.join(", ") + (longer.texts > each.length ? ", ..." : "");
  const padded = percent(padding / (rows * training.context));
  const [cut, long] = [split, longer].map(({ texts }) => texts && counted(texts, "text"));
  return {
    [`${before}packing`]: `${packing}, ${counted(rows, "sequence")}, ${padded} padding`,
    [`${before}not learnt`]: leftOut && `${counted(leftOut, "token")}, in windows without a target`,
    [`${before}split`]: cut && `${cut} of ${counted(split.tokens, "token")}`,
    [`${before}longer`]: long && `${long} than the context: ${named}`,
  };
}

/** Several sources, one a line; two may be of one name. */
function sourceRows(sources: NonNullable<RunReport["sources"]>): Facts {
  const rows = sources.map(({ name, tokens, share }, i) => [
    `  ${i + 1}. ${name}`,
    `${counted(tokens, "token")}, ${percent(share)} of the sequences`,
  ]);
  return sources.length < 2 ? {} : (Object.fromEntries(rows) as Facts);
}

function networkText({ bytesPerStep }: NonNullable<RunPlan["network"]>): string {
  const seconds = (rate: number) => ((8e-9 * bytesPerStep) / rate).toPrecision(2);
  const times = [1, 10].map((rate) => `${seconds(rate)} s at ${rate} Gbit/s`);
  return `${format.bytes(bytesPerStep)} a step: ${times.join(", ")}`;
}

export function planFacts(plan: RunPlan, run: Facts): Facts {
  const { base, data, evaluation, memoryBytes, deviceBytes } = plan;
  const { actual, asked } = data.heldOut ?? {};
  const turns = plan.takesTurns ? "; training and scoring take turns" : "";
  const memory = Object.entries(memoryBytes).map(([part, bytes]) => {
    return [`  ${part}`, `${format.bytes(bytes)}, ${MEMORY[part as keyof typeof MEMORY]}`] as const;
  });
  return {
    base: `${base.name}, ${format.parameters(base.parameters)} parameters`,
    ...run,
    "  share": data.heldOut && `${percent(actual!)} of the data, asked ${percent(asked!)}`,
    "on the way": `${counted(evaluation.evalWindows, "window")}, ${counted(evaluation.evaluations, "time")}`,
    "micro batches": `${plan.gradientAccumulationSteps} a step, batch size ${plan.batchSize}, ${plan.precision}`,
    epochs: `the data is read ${data.epochs.toFixed(2)} times`,
    device: plan.device,
    network: plan.network && networkText(plan.network),
    memory: `about ${format.bytes(plan.totalBytes)}${turns}`,
    ...Object.fromEntries(memory),
    "on the device": deviceBytes && `about ${format.bytes(deviceBytes)}`,
    recomputes: plan.recompute === "blocks" ? "whole blocks" : "what is cheap",
  };
}

/** The first row as the model sees it: what counts in colour, or between marks where there are no colours. */
export function exampleText(example: ReturnType<Prepared["example"]>): string {
  if (!example) return "";
  const runs: { readonly counts: boolean; text: string }[] = [];
  for (const { counts, text } of example)
    if (runs.at(-1)?.counts === counts) runs.at(-1)!.text += text;
    else runs.push({ counts, text });
  const marked = (text: string) => {
    const colored = styleText("yellow", text);
    return colored === text ? `«${text}»` : colored;
  };
  const numCounted = example.filter(({ counts }) => counts).length;
  const head = `first row: ${counted(example.length, "token")}, of which ${numCounted} count ${marked("so")}`;
  return `${head}\n${runs.map(({ counts, text }) => (counts ? marked(text) : text)).join("")}`;
}

export function reportText(report: RunReport, runDir: string): Section[] {
  const { before, inserted, after, delta, parameters, temperatures } = report;
  const { trained } = parameters;
  const changes = [delta.percent, ...(delta.interval95 ?? [])];
  const [change, low, high] = changes.map(format.change);
  const interval = low ? ` (95 % interval ${low} to ${high})` : "";
  const { windowsTotal: all } = after;
  const subset = after.windows === all ? "" : `, an even subset of ${all}`;
  const share = `${format.share(parameters.share)} of ${format.integer(parameters.base)}`;
  const { original } = report.quantized ?? {};
  const results = { ...(original && { original }), before, ...(inserted && { inserted }), after };
  const comparison = Object.entries(results).map(([when, result]) => [
    when,
    format.perplexity(result.perplexity),
    result.lossNats.toFixed(4),
    result.bitsPerByte?.toFixed(4) ?? "",
  ]);
  const taus = temperatures.map(({ layer, projection, ...tau }) => [
    String(layer),
    projection,
    ...[tau.min, tau.mean, tau.max].map((value) => value.toFixed(3)),
  ]);
  // Early reports do not say how many tokens were seen.
  const { mask, numTokens, windowTokens } = after;
  const seen = mask === "targets" ? ` of ${counted(windowTokens, "token")}` : "";
  const scored = `${counted(numTokens, mask === "targets" ? "target" : "token")}${seen}`;
  const isMerged = report.recipe.final === "model";
  const run = {
    scored: `${scored} in ${counted(after.windows, "window")} of ${after.context}${subset}`,
    "trained values": trained && `${format.integer(trained)} (${report.recipe.tune.join(" + ")})`,
    base: report.quantized && `in ${describeQuantization(report.quantized)}, before and after`,
    final: isMerged && report.quantized ? describeFinal(report.quantized) : null,
    "new parameters": `${format.integer(parameters.added)} (${share})`,
    steps: `${report.steps}, ${format.rate(report.tokensPerSecond)} on ${report.device}`,
    "time, memory": `${format.duration(report.elapsedSeconds)}, peak ${format.bytes(report.peakRssBytes)}`,
    ...sourceRows(report.sources ?? []),
    model: join(runDir, runFiles.final),
  };
  const answered = Object.entries(report.tasks ?? {}).map(([name, { change }]) => [
    name,
    ...[change.baselineAcc, change.acc].map((accuracy) => accuracy.toFixed(4)),
    ...[change.won, change.lost].map(format.integer),
    change.pValue < 0.001 ? "<0.001" : change.pValue.toFixed(3),
    change.verdict,
  ]);
  const head = ["task", "before", "after", "won", "lost", "p (McNemar)", "verdict"];
  return [
    [["", "perplexity", "nats/token", "bits/byte"], comparison],
    styleText("bold", `perplexity ${change}${interval}`),
    answered.length > 0 ? [head, answered] : "",
    run,
    taus.length > 0 ? [["layer", "projection", "min τ", "mean τ", "max τ"], taus] : "",
  ];
}

/** The commands that use what was made. */
export function whatNext(report: RunReport, runDir: string, io: CommandIo): string[] {
  const { recipe, after, heldOut } = report;
  const data = recipe.evalData ?? sourcesOf(recipe)[0]!.path;
  // Of data with a split in its name the run took its own choice.
  const isHeldOut = heldOut || (!recipe.evalData && /@[\w.+-]+$/.test(data));
  const { maxTokens, context, reportWindows: windows } = recipe;
  const scored = Object.entries({
    holdOut: isHeldOut && recipe.holdOut,
    maxTokens,
    context,
    windows,
  })
    .filter(([, value]) => typeof value === "number")
    .map(([key, value]) => ` ${flagName(key)} ${value}`);
  const said = (value: unknown) => {
    const pairs = isRecord(value) && Object.entries(value).map((pair) => pair.join("="));
    return pairs ? pairs.join() : String(value);
  };
  const rows = optionsOf({ ...rowOptions, ...quantizeOptions })
    .filter(({ key, initial }) => JSON.stringify(recipe[key]) !== JSON.stringify(initial))
    .map(({ key }) => {
      return ` ${flagName(key)}${recipe[key] === true ? "" : ` ${word(said(recipe[key]))}`}`;
    })
    .join("");
  const model = `--model ${word(join(runDir, runFiles.final))}`;
  const talks = recipe.format === "chat" || recipe.chatTemplate !== null;
  const start = talks ? "--chat" : '--prompt "Once upon a time"';
  const commands = [
    `eval ${model} --data ${word(data)}${scored.join("")}${rows}`,
    // Bits per byte are known where there is text, so that the model has a tokenizer.
    ...(after.bitsPerByte === null ? [] : [`generate ${model} ${start}`]),
    `convert ${model} --to onnx --out ${word(`${runDir}-onnx`)}`,
  ];
  return commands.map((line, i) => `${(i ? "" : "next").padEnd(10)}${program(io)} ${line}`);
}

/** How a run that was stopped goes on. */
export const howToResume = (runDir: string, io: CommandIo) =>
  `${program(io)} finetune --resume --out ${word(runDir)}`;

/** This program, as it was called. */
const program = ({ env }: CommandIo) => (env["npm_command"] === "exec" ? "npx ssa" : "ssa");

/** A word as a shell takes it. */
const word = (text: string) =>
  /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

const LOG_FORMATS = ["auto", "human", "json"] as const;
const how = oneOf(LOG_FORMATS, "format");
export const logFormat = preset(how, "auto", "json: JSON lines; else for people");

/** JSON lines where they are asked for; what comes before the run, and its end, is told so too. */
export const openLog = (io: CommandIo, format: (typeof LOG_FORMATS)[number]) =>
  format === "json" ? jsonLog(io) : humanLog(io);

function jsonLog(io: CommandIo) {
  const destination = { write: (line: string) => void io.stderr.write(line) };
  const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  const lines = { write: (line: string) => log.info(line.trimEnd()) };
  io.progress = progress(lines, { isTty: false, now: io.now });
  let last = "";
  return {
    event: (event: RunEvent) => {
      // A line per tenth of a long scoring, not per window.
      const tenth = event.kind === "scored" ? `${Math.floor((10 * event.windows) / event.of)}` : "";
      if (tenth === "" || tenth !== last) log.info(event.kind === "note" ? event.text : event);
      last = tenth;
    },
    note: (text: string) => log.info(text),
  };
}

function humanLog({ progress: line, now }: CommandIo) {
  // Of steps that followed one another: what was scored between others says nothing of them.
  let [timed, timedMs, last] = [0, 0, 0];
  let phase = "";
  const update = (name: string, fields: readonly string[], fraction?: number) => {
    if (name !== phase) line.done(); // the first line of each phase comes at once
    phase = name;
    line.update(fields, fraction);
  };
  return {
    note: (text: string) => line.line(text),
    event: (event: RunEvent) => {
      if (event.kind === "note") return line.line(event.text);
      if (event.kind === "saved") return;
      if (event.kind === "evaluated") {
        const perplexity = format.perplexity(Math.exp(event.lossNats));
        return line.line(`step ${event.step}: held-out perplexity ${perplexity}`);
      }
      if (event.kind === "scored") {
        const { windows, of } = event;
        const fields = [`scoring ${event.phase}`, `window ${windows} of ${of}`];
        return update(event.phase, fields, windows / of);
      }
      const { step, steps, lossNats, learningRate, tokensPerSecond } = event;
      if (phase === "training") [timed, timedMs] = [timed + 1, timedMs + now() - last];
      last = now();
      const left = (timedMs / 1000 / timed) * (steps - step);
      // No bar: with one, the time left would not fit 80 columns.
      update("training", [
        `step ${step}/${steps}`,
        `loss ${lossNats.toFixed(4)}`,
        `lr ${learningRate.toExponential(1)}`,
        format.rate(tokensPerSecond),
        ...(timed > 0 ? [`${format.duration(left)} left`] : []),
      ]);
    },
  };
}
