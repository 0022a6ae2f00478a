// An exported ONNX folder in the hands of those who will use it: @huggingface/transformers, from local files alone.
// B = batch, T = sequence, S = past and present, V = vocabulary

import type { PreTrainedTokenizer, Tensor } from "@huggingface/transformers";
import { resolve } from "node:path";
import { setImmediate } from "node:timers/promises";
import { messageOf, UserError } from "../core/errors.ts";
import type { Provider } from "../engines/index.ts";

/** Keys and values of all layers, by input name. */
export type Past = Readonly<Record<string, Tensor>>;

type Rows = readonly (readonly number[])[];

/** Tokens of a long prompt that are read at a time: each sees all before it, so that squares of all would not fit. */
const PROMPT_ROWS = 512;

/** Loads the model of an exported folder as any user of the library does; the processor runs it by default. */
export async function openClient(folder: string, provider?: Provider) {
  const { AutoModelForCausalLM, DynamicCache, Tensor } = await import("@huggingface/transformers");
  const model = await loading(folder, (path) =>
    AutoModelForCausalLM.from_pretrained(path, {
      local_files_only: true,
      ...(provider && { session_options: { executionProviders: [provider] } }),
    }),
  );
  const integers = (rows: Rows) =>
    new Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]!.length]);
  const client = {
    model,
    dispose: () => model.dispose(),
    /** What `model.generate` takes beside a prompt that has been read up to its last thousand tokens, or to an abort. */
    async read(ids: readonly number[], signal?: AbortSignal) {
      let past: Past | undefined;
      for (let end = PROMPT_ROWS; ids.length - end >= PROMPT_ROWS; end += PROMPT_ROWS) {
        await setImmediate(); // a run holds the thread, on which signals arrive
        if (signal?.aborted) break;
        const seen = Array<number>(end).fill(1);
        ({ past } = await client.forward([ids.slice(end - PROMPT_ROWS, end)], [seen], past));
      }
      return past && { past_key_values: new DynamicCache(past) };
    },
    /** Logits [B, T, V] of new tokens, given an attention mask [B, S] and what an earlier call left. */
    async forward(ids: Rows, mask: Rows, past?: Past) {
      const outputs = (await model.forward({
        input_ids: integers(ids),
        attention_mask: integers(mask),
        past_key_values: past ?? null,
      })) as Record<string, Tensor>;
      const cache = Object.entries(outputs)
        .filter(([name]) => name.startsWith("present."))
        .map(([name, tensor]) => [name.replace("present.", "past_key_values."), tensor] as const);
      const logits = outputs["logits"]!.data as Float32Array;
      return { logits, past: Object.fromEntries(cache) as Past };
    },
  };
  return client;
}

export async function openClientTokenizer(folder: string): Promise<PreTrainedTokenizer> {
  const { AutoTokenizer } = await import("@huggingface/transformers");
  return loading(folder, (path) => AutoTokenizer.from_pretrained(path, { local_files_only: true }));
}

const loading = <T>(folder: string, load: (path: string) => Promise<T>) =>
  load(resolve(folder)).catch((cause: unknown) => {
    const problem = `@huggingface/transformers cannot load ${folder}: ${messageOf(cause)}`;
    throw new UserError(problem, { exitCode: 1, cause });
  });
