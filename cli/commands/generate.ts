// `ssa generate`: continues a prompt with @huggingface/transformers on the model's exported graph.

import { styleText } from "node:util";
import { UserError } from "../../src/core/errors.ts";
import { providerOf } from "../../src/engines/index.ts";
import { generate, type Sampling } from "../../src/generate/generate.ts";
import { opening } from "../../src/model/places.ts";
import * as kind from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import * as format from "../format.ts";
import { cacheFolder, places, staging } from "../io.ts";

const { maybe, shared, wholeNumber } = kind;

const sampled = {
  temperature: maybe(kind.within(0, 100, "number"), "sample; above 1 more varied, below 1 less"),
  topK: maybe(wholeNumber(1), "sample from the n most probable tokens"),
  topP: maybe(kind.within(0, 1, "share"), "sample from the most probable of this share"),
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
  examples: `The most probable token is taken each time, unless sampling is asked for. The model's ONNX export is made at the first call and kept;
\`ssa doctor\` shows where.

Example:
  $ ssa generate --model tiny-gpt2 --prompt "The nation" --temperature 0.8 --seed 1`,
  async run(
    { model, adapter, device, prompt, maxNewTokens, refresh, json, ...options },
    io,
    { signal },
  ) {
    const sampling = samplingOf(options);
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
      ...(sampling && { sampling }),
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
    const seed = sampling && { seed: sampling.seed };
    const document = () => JSON.stringify({ prompt, ...generation, ...seed }, null, 2);
    io.stdout.write(`${json ? document() : ""}\n`);
    if (json || !io.isTty) return;
    const { length } = generation.tokens;
    const rate = format.rate((length - 1) / ((io.now() - (begun ?? io.now())) / 1000 || 1));
    const repeat = seed ? `, seed ${seed.seed}` : "";
    io.stderr.write(`${styleText("dim", `${length} tokens, ${rate}${repeat}`)}\n`);
  },
});

/** Sampling where any of its options is given; a temperature of 0 is greedy. */
function samplingOf(given: kind.Values<typeof sampled>): Sampling | undefined {
  const { temperature, topK, topP, seed } = given;
  if (temperature !== 0 && [temperature, topK, topP].some((value) => value !== undefined))
    return { ...given, seed: seed ?? Math.floor(Math.random() * 2 ** 31) };
  if ([seed, topK, topP].some((value) => value !== undefined))
    throw new UserError("greedy generation has no use for --seed, --top-k and --top-p", {
      hint: "sample with a --temperature above 0, --top-k or --top-p",
    });
  return undefined;
}
