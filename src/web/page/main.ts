/*! With @huggingface/tokenizers, under the Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0), and zod,
Copyright (c) 2025 Colin McDonnell: Permission is hereby granted, free of charge, to any person obtaining a copy of this
software and associated documentation files (the "Software"), to deal in the Software without restriction, including
without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions: The
above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO
THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
// The page that fine-tunes: what is chosen, the run as it goes, and what is made of it.

import { messageOf, UserError } from "../../core/errors.ts";
import * as format from "../../core/format.ts";
import { openWebEngine, type WebDeviceName, webDevices } from "../../engines/onnxruntime/web.ts";
import { countParameters } from "../../model/opened.ts";
import { runFiles } from "../../files/names.ts";
import type { RunPage } from "../../report/data.ts";
import { choice, element, form, number, section } from "../../report/page/dom.ts";
import * as plots from "../../report/page/plots.ts";
import { outcome } from "../../report/page/run.ts";
import type { RunEvent } from "../../run/work.ts";
import { adapterOf, bytesFor, preparePageRun, trainInPage } from "../fine-tune.ts";
import { type Files, openFolder, type PageModel, readTexts, type Texts } from "../folder.ts";
import type { Offer } from "../site.ts";
import { promptSection } from "./prompt.ts";

const offer = JSON.parse(document.querySelector("#data")!.textContent) as Offer;
const { recipe } = offer;
const beside = (name: string) => new URL(name, document.baseURI).href;

async function fetched(name: string): Promise<Response> {
  const response = await fetch(beside(name)).catch(() => undefined);
  if (response?.ok) return response;
  throw new UserError(`${name} is not there`, { hint: "is ssa serve still at work?" });
}

const inputs = {
  model: element("input", { type: "file", webkitdirectory: "" }),
  text: element("input", { type: "file", multiple: "", accept: ".txt,.md,text/plain" }),
  steps: number(recipe.steps, 1),
  context: number(recipe.context === "auto" ? 128 : recipe.context, 2),
  learningRate: number(recipe.learningRate, 0, "any"),
  seed: number(recipe.seed, 0),
  device: choice(Object.keys(webDevices), (name) => webDevices[name as WebDeviceName].description),
};
const start = element("button", {}, "Fine-tune");
const stop = element("button", { type: "button", disabled: "" }, "Stop");
const status = element("p", { role: "status" });
const facts = element("p");
const results = element("div");

const about =
  "Trains the attention temperatures of a language model on your text. All of it happens in this page: neither the model nor the text leaves your machine.";
const ownModel = `${recipe.base}, which came with this page`;
const asking = form(
  [
    [`Model folder: choose or drop one (otherwise: ${ownModel})`, inputs.model, "wide"],
    [`Text files: choose or drop some (otherwise: ${offer.dataName})`, inputs.text, "wide"],
    ["Steps", inputs.steps],
    ["Tokens seen at once", inputs.context],
    ["Learning rate", inputs.learningRate],
    ["Seed", inputs.seed],
    ["Device", inputs.device],
  ],
  start,
  stop,
);
const title = element("h1", {}, "Fine-tune in this browser");
const lead = element("p", { class: "lead" }, about);
document.querySelector("#page")!.replaceChildren(title, lead, asking, status, facts, results);

/** By name, of the chosen folder alone, not of those in it. */
function filesOf(list: FileList | null): Files {
  const isOurs = (file: File) => file.webkitRelativePath.split("/").length <= 2;
  return new Map([...(list ?? [])].filter(isOurs).map((file) => [file.name, file]));
}

const say = (text: string) => (status.textContent = text);

async function chosenModel(): Promise<PageModel> {
  const { files } = inputs.model;
  if (files?.length) return openFolder(files[0]!.webkitRelativePath.split("/")[0]!, filesOf(files));
  const offered = new Map<string, Blob>();
  for (const name of offer.modelFiles)
    offered.set(name, await (await fetched(`model/${name}`)).blob());
  return openFolder(recipe.base, offered);
}

async function chosenTexts(): Promise<Texts> {
  const files: Files = filesOf(inputs.text.files);
  if (files.size > 0) return readTexts(files, recipe.holdOut);
  return (await (await fetched("texts.json")).json()) as Texts;
}

/** The recipe as `ssa finetune` resolves it with what the form says. */
function asked() {
  const fields = [inputs.steps, inputs.context, inputs.learningRate, inputs.seed];
  const numbers = fields.map(({ valueAsNumber }) => valueAsNumber);
  const [steps, context, learningRate, seed] = numbers as [number, number, number, number];
  // So that a shorter run reaches its peak.
  const most = steps === recipe.steps ? Infinity : Math.floor(steps / 2);
  const warmupSteps = Math.min(recipe.warmupSteps, most);
  return { ...recipe, steps, context, learningRate, seed, warmupSteps };
}

/** Ends what holds the model of the run before. */
let release: (() => Promise<void>) | undefined;

async function work(signal: AbortSignal): Promise<void> {
  await release?.();
  release = undefined;
  say("Reading the model");
  const model = await chosenModel();
  say("Reading the text");
  const run = await preparePageRun(model, await chosenTexts(), asked());
  const device = inputs.device.value as WebDeviceName;
  const engine = await openWebEngine(device, beside("runtime/"), model.files);
  const { opened, tensors } = run;
  const trained = tensors.reduce((sum, { values }) => sum + values.length, 0);
  facts.textContent =
    `${opened.name}: ${format.parameters(countParameters(opened.model))} parameters and ${format.integer(trained)} ` +
    `temperatures that train; ${format.integer(run.trainTokens)} tokens to learn from; takes about ` +
    `${format.bytes(bytesFor(run, engine))} of memory.`;
  const { onEvent, curves, metrics } = watching();
  const measured = await trainInPage(run, engine, { signal, onEvent });
  const files = adapterOf(run, await model.base()).set(runFiles.metrics, metrics());
  const prompts = await promptSection(engine, model.tokenizer, run);
  release = prompts.dispose;
  results.replaceChildren(curves(), outcome(measured), adapterSection(files), prompts.content);
  say(`Done: ${format.counted(run.recipe.steps, "step")} on ${engine.description}.`);
}

/** Tells how far the run is, draws its losses about once a second, and keeps them. */
function watching() {
  const points: RunPage["curves"]["points"] = [];
  const evaluations: RunPage["curves"]["evaluations"] = [];
  let metrics = "";
  const keep = (record: object) => (metrics += `${JSON.stringify(record)}\n`);
  const curves = () => {
    const of = { stepsPerPoint: 1, points, evaluations };
    const plot = plots.curve("Loss, nats per token, by step", of, "loss");
    const how = "Pale: each step; strong: the running mean; dots: held-out text.";
    return section("Training", how, plot);
  };
  let drawn = 0;
  const onEvent = (event: RunEvent) => {
    if (event.kind === "scored")
      say(`Scoring held-out text ${event.phase}: window ${event.windows} of ${event.of}`);
    if (event.kind === "evaluated") {
      const { step, lossNats } = event;
      evaluations.push({ step, loss: lossNats });
      keep({ kind: "evaluation", step, lossNats });
    }
    if (event.kind !== "step") return;
    const { steps, ...record } = event;
    const { step, lossNats: loss, gradNorm, learningRate } = record;
    points.push({ step, loss, gradNorm, learningRate });
    keep(record);
    say(`Step ${step} of ${steps}: loss ${loss.toFixed(4)}`);
    if (performance.now() - drawn < 1000) return;
    drawn = performance.now();
    results.replaceChildren(curves());
  };
  return { onEvent, curves, metrics: () => new Blob([metrics]) };
}

function adapterSection(files: Files) {
  const links = Array.from(files, ([name, blob]) =>
    element("li", {}, element("a", { href: URL.createObjectURL(blob), download: name }, name)),
  );
  return section(
    "Adapter",
    "Put the first two into one folder: ssa eval --model BASE --adapter FOLDER measures it, ssa generate writes with it, ssa convert makes one model of both.",
    element("ul", {}, ...links),
  );
}

let controller = new AbortController();
stop.addEventListener("click", () => controller.abort());
asking.addEventListener("submit", (event) => {
  event.preventDefault();
  controller = new AbortController();
  const { signal } = controller;
  [start.disabled, stop.disabled] = [true, false];
  facts.textContent = "";
  results.replaceChildren();
  work(signal)
    .catch((error: unknown) => {
      say(signal.aborted ? "Stopped." : "");
      if (signal.aborted) return;
      const hint = error instanceof UserError && error.hint ? ` (${error.hint})` : "";
      results.prepend(element("p", { class: "bad", role: "alert" }, messageOf(error) + hint));
    })
    .finally(() => ([start.disabled, stop.disabled] = [false, true]));
});
