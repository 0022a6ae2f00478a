// `ssa generate`: text from @huggingface/transformers on the exported graph, which is made once per model and kept.

import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { readJson } from "../files/json.ts";
import { modelFiles } from "../files/names.ts";
import type { Provider } from "../engines/index.ts";
import { readModel } from "../models/index.ts";
import { cachedExport, type CacheOptions } from "./export-cache.ts";
import { openClient, openClientTokenizer } from "../export/client.ts";
import { nucleus } from "./nucleus.ts";
import { continuationStreamer } from "./streamer.ts";

export interface GenerateOptions extends CacheOptions {
  readonly prompt: string;
  readonly maxNewTokens: number;
  /** Runs the graph; the processor by default. */
  readonly provider?: Provider;
  /** Absent: greedy, the most probable token each time. */
  readonly sampling?: Sampling;
  /** Told the text as it comes. */
  readonly onText?: (text: string) => void;
  /** Ends the generation after the present token. */
  readonly signal?: AbortSignal;
}

export interface Sampling {
  /** Divides the logits; 1 by default. */
  readonly temperature?: number | undefined;
  /** Only the k most probable tokens; all by default. */
  readonly topK?: number | undefined;
  /** Only the most probable tokens that together have this probability; 1 by default. */
  readonly topP?: number | undefined;
  readonly seed: number;
}

export interface Generation {
  /** Without the prompt. */
  readonly text: string;
  readonly numPromptTokens: number;
  readonly tokens: readonly number[];
  /** `end` is the model's own end-of-text token, `context` the end of its positions. */
  readonly stop: "end" | "maxNewTokens" | "context" | "interrupted";
}

/** Continues a prompt. */
export async function generate(options: GenerateOptions): Promise<Generation> {
  const { prompt, maxNewTokens, sampling, onText, onStage, signal } = options;
  const folder = await cachedExport(options);
  onStage?.("loading");
  const { InterruptableStoppingCriteria, random } = await import("@huggingface/transformers");
  const tokenizer = await openClientTokenizer(folder);
  const configPath = join(folder, modelFiles.config);
  const { maxPositions } = readModel(configPath, await readJson(configPath)).config;
  const inputs = tokenizer(prompt) as Record<string, { readonly dims: readonly number[] }>;
  const numPromptTokens = inputs["input_ids"]!.dims.at(-1)!;
  const room = maxPositions - numPromptTokens;
  if (numPromptTokens === 0)
    throw new UserError("the prompt has no tokens", { hint: "write some text" });
  if (room <= 0)
    throw new UserError(
      `the prompt has ${numPromptTokens} tokens, the model ends at ${maxPositions}`,
      { hint: "shorten it" },
    );

  const interruption = new InterruptableStoppingCriteria();
  const interrupt = () => interruption.interrupt();
  if (signal?.aborted) interrupt();
  signal?.addEventListener("abort", interrupt, { once: true });
  const pieces: string[] = [];
  const streamer = await continuationStreamer(tokenizer, (text) => {
    pieces.push(text);
    onText?.(text);
  });
  if (sampling) random.seed(sampling.seed);
  const client = await openClient(folder, options.provider);
  try {
    const sequences = (await client.model.generate({
      ...inputs,
      max_new_tokens: Math.min(maxNewTokens, room),
      do_sample: sampling !== undefined,
      temperature: sampling?.temperature ?? 1,
      top_k: sampling?.topK ?? 0,
      ...(sampling?.topP !== undefined && {
        logits_processor: await nucleus(sampling.topK ?? 0, sampling.topP),
      }),
      stopping_criteria: interruption,
      streamer,
    })) as { readonly data: BigInt64Array };
    const tokens = Array.from(sequences.data.subarray(numPromptTokens), Number);
    const ends = { [room]: "context", [maxNewTokens]: "maxNewTokens" } as const;
    const stop = interruption.interrupted ? "interrupted" : (ends[tokens.length] ?? "end");
    return { text: pieces.join(""), numPromptTokens, tokens, stop };
  } finally {
    signal?.removeEventListener("abort", interrupt);
    await client.dispose();
  }
}
