// `ssa generate`: text from @huggingface/transformers on the exported graph, which is made once per model and kept.

import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { readJson, readJsonIfSound } from "../files/json.ts";
import { modelFiles } from "../files/names.ts";
import type { Provider } from "../engines/index.ts";
import { readModel } from "../models/index.ts";
import { cachedExport, type CacheOptions } from "./export-cache.ts";
import { openClient, openClientTokenizer } from "../export/client.ts";
import { type AskedSampling, nucleus, type Sampling, samplingOf } from "./sampling.ts";
import { continuationStreamer } from "./streamer.ts";

export interface GenerateOptions extends CacheOptions {
  readonly prompt: string;
  readonly maxNewTokens: number;
  /** Runs the graph; the processor by default. */
  readonly provider?: Provider;
  /** What is not given is as the model's generation_config.json says. */
  readonly sampling?: AskedSampling;
  /** Makes what is drawn repeatable; 0 by default. */
  readonly seed?: number;
  /** Told the text as it comes. */
  readonly onText?: (text: string) => void;
  /** Ends the generation after the present token. */
  readonly signal?: AbortSignal;
}

export interface Generation {
  /** Without the prompt. */
  readonly text: string;
  readonly numPromptTokens: number;
  readonly tokens: readonly number[];
  /** `end` is the model's own end-of-text token, `context` the end of its positions. */
  readonly stop: "end" | "maxNewTokens" | "context" | "interrupted";
  /** As it was done. */
  readonly sampling: Sampling;
  /** Absent where the text is greedy. */
  readonly seed?: number;
}

/** Continues a prompt. */
export async function generate(options: GenerateOptions): Promise<Generation> {
  const { prompt, maxNewTokens, seed = 0, onText, onStage, signal } = options;
  const folder = await cachedExport(options);
  onStage?.("loading");
  const { InterruptableStoppingCriteria, random } = await import("@huggingface/transformers");
  const tokenizer = await openClientTokenizer(folder);
  const configPath = join(folder, modelFiles.config);
  const { maxPositions } = readModel(configPath, await readJson(configPath)).config;
  const generationPath = join(folder, modelFiles.generationConfig);
  const defaults = (await readJsonIfSound(generationPath)) ?? {};
  const sampling = samplingOf(generationPath, defaults, options.sampling ?? {});
  const { temperature, topK, topP, repetitionPenalty } = sampling;
  const isGreedy = temperature === 0;
  const inputs = tokenizer(prompt) as Record<string, { readonly dims: readonly number[] }>;
  const numPromptTokens = inputs["input_ids"]!.dims.at(-1)!;
  const room = maxPositions - numPromptTokens;
  if (numPromptTokens === 0)
    throw new UserError("the prompt has no tokens", { hint: "write some text" });
  const problem = `the prompt has ${numPromptTokens} tokens, the model ends at ${maxPositions}`;
  if (room <= 0) throw new UserError(problem, { hint: "shorten it" });

  const interruption = new InterruptableStoppingCriteria();
  const interrupt = () => interruption.interrupt();
  if (signal?.aborted) interrupt();
  signal?.addEventListener("abort", interrupt, { once: true });
  const pieces: string[] = [];
  const streamer = await continuationStreamer(tokenizer, (text) => {
    pieces.push(text);
    onText?.(text);
  });
  random.seed(seed);
  const client = await openClient(folder, options.provider);
  try {
    const sequences = (await client.model.generate({
      ...inputs,
      max_new_tokens: Math.min(maxNewTokens, room),
      num_beams: 1,
      do_sample: !isGreedy,
      temperature: temperature || 1,
      top_k: topK,
      repetition_penalty: repetitionPenalty,
      ...(!isGreedy && topP < 1 && { logits_processor: await nucleus(topK, topP) }),
      stopping_criteria: interruption,
      streamer,
    })) as { readonly data: BigInt64Array };
    const tokens = Array.from(sequences.data.subarray(numPromptTokens), Number);
    const ends = { [room]: "context", [maxNewTokens]: "maxNewTokens" } as const;
    const stop = interruption.interrupted ? "interrupted" : (ends[tokens.length] ?? "end");
    const drawn = !isGreedy && { seed };
    return { text: pieces.join(""), numPromptTokens, tokens, stop, sampling, ...drawn };
  } finally {
    signal?.removeEventListener("abort", interrupt);
    await client.dispose();
  }
}
