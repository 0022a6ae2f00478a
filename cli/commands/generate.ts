// `ssa generate`: continues a prompt with @huggingface/transformers on the model's exported graph.

import { text as textOf } from "node:stream/consumers";
import { styleText } from "node:util";
import { UserError } from "../../src/core/errors.ts";
import { isRecord, type JsonObject } from "../../src/core/json.ts";
import type { Message } from "../../src/data/chat-answers.ts";
import { readJsonLines, readWhole } from "../../src/data/readers/text.ts";
import { providerOf } from "../../src/engines/index.ts";
import { checkFile } from "../../src/files/atomic.ts";
import { openGenerator, type Prompt } from "../../src/generate/generate.ts";
import { quantizationOf } from "../../src/model/blocks.ts";
import { quantizeOptions, rowOptions } from "../../src/options/common.ts";
import * as kind from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import { converse } from "../converse.ts";
import * as format from "../../src/core/format.ts";
import { cacheFolder, type CommandIo, places, staging } from "../io.ts";

const { maybe, shared, wholeNumber } = kind;

const options = {
  model: shared.model,
  prompt: maybe(kind.text("text", 0), "text to continue; -: from standard input"),
  promptFile: maybe(kind.text("file"), "file of the text to continue"),
  prompts: maybe(kind.text("file"), "lines of JSON, prompts or messages; such lines come out"),
  chat: kind.flag("the prompt is a message to answer; without one, talk on a terminal"),
  chatTemplate: rowOptions.chatTemplate,
  adapter: shared.adapter,
  ...quantizeOptions,
  maxNewTokens: kind.preset(wholeNumber(1), 100, "tokens to add at most"),
  // Where one is not given, the model's generation_config.json counts.
  temperature: maybe(kind.within(0, 100, "number"), "above 1 more varied, below 1 less; 0: greedy"),
  topK: maybe(wholeNumber(1), "sample from the n most probable tokens"),
  topP: maybe(kind.within(0, 1, "share"), "sample from the most probable of this share"),
  repetitionPenalty: maybe(kind.above0(), "above 1: tokens of the text so far less probable"),
  seed: maybe(wholeNumber(0), "makes sampling repeatable"),
  device: shared.device,
  refresh: shared.refresh,
};

export const command = defineCommand({
  options,
  stops: "after this token, or this piece of the prompt",
  examples: `Tokens are sampled as the model's generation_config.json says, or else at temperature 0.8 from the 40 most
probable and 95 %. The model's ONNX export is made at the first call and kept; \`ssa doctor\` shows where.

Example:
  $ ssa generate --model tiny-gpt2 --prompt "The nation" --temperature 0.8 --seed 1`,
  async run(given, io, { signal }) {
    const { prompts, json, temperature, topK, topP, repetitionPenalty, seed } = given;
    if (temperature === 0 && (topK ?? topP ?? seed) !== undefined)
      throw new UserError("greedy generation has no use for --seed, --top-k and --top-p", {
        hint: "sample with a --temperature above 0, or leave them out",
      });
    // All of them, before anything is loaded for the first.
    const asked = await promptsOf(given, io);
    const at = { ...places(io, given.refresh), signal };
    const folder = cacheFolder(io, "exports");
    const sampling = { temperature, topK, topP, repetitionPenalty };
    const drawn = { sampling, seed: seed ?? Math.floor(Math.random() * 2 ** 31) };
    const provider = await providerOf(given.device, at.onChoice);
    const quantization = quantizationOf(given);
    const onStage = staging(io, signal);
    const how = { ...drawn, provider, quantization, cacheFolder: folder, onStage };
    const opened = openGenerator({ ...at, ...given, ...how });
    await using generator = await opened.catch((error: unknown) => {
      if (!(error instanceof UserError && error.message.includes(folder))) throw error;
      const hints = ["SSA_CACHE=DIR keeps exports elsewhere", error.hint].filter(Boolean);
      throw new UserError(error.message, { hint: hints.join("; "), exitCode: 1 });
    });
    const answer = async (prompt: Prompt, stop = signal, isShown = !json && !prompts) => {
      let begun: number | undefined;
      const generation = await generator.answer(prompt, {
        signal: stop,
        onText: (text) => {
          if (begun === undefined) io.progress.done();
          begun ??= io.now();
          if (isShown) io.stdout.write(text);
        },
      });
      if (isShown) io.stdout.write("\n");
      const { tokens, seed: drawn } = generation;
      const seconds = (io.now() - (begun ?? io.now())) / 1000 || 1;
      const repeat = drawn === undefined ? "" : `, seed ${drawn}`;
      const told = `${format.counted(tokens.length, "token")}, ${format.rate(Math.max(0, tokens.length - 1) / seconds)}${repeat}`;
      if (isShown && io.isTty) io.stderr.write(`${styleText("dim", told)}\n`);
      return generation;
    };
    if (!asked) return await converse(io, signal, answer);
    for (const [said, prompt] of asked) {
      const generation = await answer(prompt);
      if (generation.stop === "interrupted") io.exitCode = 130;
      if (prompts) io.stdout.write(`${JSON.stringify({ ...said, text: generation.text })}\n`);
      else if (json) io.stdout.write(`${JSON.stringify({ ...said, ...generation }, null, 2)}\n`);
      if (signal.aborted) break;
    }
  },
});

type Given = kind.Values<typeof options> & { readonly json: boolean };

/** Each prompt as it was given, and as the model gets it; undefined where somebody will type them. */
function promptsOf({ prompt, promptFile, prompts, chat, json }: Given, io: CommandIo) {
  const given = [prompt, promptFile, prompts].filter((each) => each !== undefined);
  if (given.length > 1)
    throw new UserError("give one of --prompt, --prompt-file and --prompts", {
      hint: "several prompts are lines of the file of --prompts",
    });
  if (prompts !== undefined && json)
    throw new UserError("--prompts writes lines of JSON by itself", { hint: "leave out --json" });
  if (prompts !== undefined) return readPrompts(prompts, chat);
  if (given.length > 0) return readPrompt(io, chat, prompt, promptFile);
  if (chat && io.stdin.isTTY && !json) return undefined;
  throw new UserError("there is nothing to continue", {
    hint: "give --prompt TEXT (- for standard input), --prompt-file or --prompts, or --chat on a terminal",
  });
}

const message = (text: string, chat: boolean): Prompt =>
  chat ? [{ role: "user", content: text }] : text;

type Asked = readonly [said: JsonObject, prompt: Prompt];

async function readPrompt(io: CommandIo, chat: boolean, given?: string, file = "") {
  if (given === undefined) await checkFile(file);
  const isTyped = given !== undefined && given !== "-";
  const read = () => (given === undefined ? readWhole(file) : textOf(io.stdin));
  // An editor and echo end a file with a line; what is to be continued seldom does.
  const prompt = isTyped ? given : (await read()).replace(/\r?\n$/, "");
  return [[{ prompt }, message(prompt, chat)] satisfies Asked];
}

async function readPrompts(path: string, chat: boolean) {
  await checkFile(path);
  const asked: Asked[] = [];
  for await (const { value, problem, place } of readJsonLines(path)) {
    const row = isRecord(value) ? value : {};
    const { prompt, messages } = row;
    const reason = problem?.message ?? 'expected {"prompt": "…"} or {"messages": […]}';
    if (typeof prompt === "string") asked.push([row, message(prompt, chat)]);
    else if (!Array.isArray(messages)) throw new UserError(`${place}: ${reason}`);
    else asked.push([row, messages as Message[]]);
  }
  return asked;
}
