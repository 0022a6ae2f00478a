// `ssa generate`: continues a prompt with @huggingface/transformers on the model's exported graph.

import { styleText } from "node:util";
import { UserError } from "../../src/core/errors.ts";
import { providerOf } from "../../src/engines/index.ts";
import { generate } from "../../src/generate/generate.ts";
import { opening } from "../../src/model/places.ts";
import * as kind from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import * as format from "../format.ts";
import { cacheFolder, places, staging } from "../io.ts";

const { maybe, shared, wholeNumber } = kind;

// Where one is not given, the model's generation_config.json counts.
const sampled = {
  temperature: maybe(kind.within(0, 100, "number"), "above 1 more varied, below 1 less; 0: greedy"),
  topK: maybe(wholeNumber(1), "sample from the n most probable tokens"),
  topP: maybe(kind.within(0, 1, "share"), "sample from the most probable of this share"),
  repetitionPenalty: maybe(kind.above0(), "above 1: tokens of the text so far less probable"),
  seed: maybe(wholeNumber(0), "makes sampling repeatable"),
};

export const command = defineCommand({
  options: {
    model: shared.model,
    prompt: kind.needed(kind.text("text", 0), "text to continue"),
    adapter: shared.adapter,
    maxNewTokens: kind.preset(wholeNumber(1), 100, "tokens to add at most"),
    ...sampled,
    device: shared.device,
    refresh: shared.refresh,
    json: shared.json,
  },
  stops: "after this token",
  examples: `Tokens are sampled as the model's generation_config.json says, or else at temperature 0.8 from the 40 most
probable and 95 %. The model's ONNX export is made at the first call and kept; \`ssa doctor\` shows where.

Example:
  $ ssa generate --model tiny-gpt2 --prompt "The nation" --temperature 0.8 --seed 1`,
  async run({ device, refresh, json, seed, ...given }, io, { signal }) {
    const { model, adapter, prompt, maxNewTokens, ...sampling } = given;
    const { temperature, topK, topP } = sampling;
    if (temperature === 0 && (topK ?? topP ?? seed) !== undefined)
      throw new UserError("greedy generation has no use for --seed, --top-k and --top-p", {
        hint: "sample with a --temperature above 0, or leave them out",
      });
    const at = { ...places(io, refresh), signal };
    const folder = cacheFolder(io, "exports");
    let begun: number | undefined;
    const generation = await generate({
      ...opening(at),
      model,
      adapter,
      provider: await providerOf(device, at.onChoice),
      cacheFolder: folder,
      prompt,
      maxNewTokens,
      sampling,
      seed: seed ?? Math.floor(Math.random() * 2 ** 31),
      signal,
      onStage: staging(io, signal),
      onText: (text) => {
        if (begun === undefined) io.progress.done();
        begun ??= io.now();
        if (!json) io.stdout.write(text);
      },
    }).catch((error: unknown) => {
      if (!(error instanceof UserError && error.message.includes(folder))) throw error;
      const hint = `SSA_CACHE=DIR keeps exports elsewhere; ${error.hint}`;
      throw new UserError(error.message, { hint, exitCode: 1 });
    });
    if (generation.stop === "interrupted") io.exitCode = 130;
    io.stdout.write(json ? `${JSON.stringify({ prompt, ...generation }, null, 2)}\n` : "\n");
    if (json || !io.isTty) return;
    const { tokens, seed: drawn } = generation;
    const seconds = (io.now() - (begun ?? io.now())) / 1000 || 1;
    const repeat = drawn === undefined ? "" : `, seed ${drawn}`;
    const told = `${tokens.length} tokens, ${format.rate((tokens.length - 1) / seconds)}${repeat}`;
    io.stderr.write(`${styleText("dim", told)}\n`);
  },
});
