// An exported ONNX folder in the hands of those who will use it: @huggingface/transformers, from local files alone.
// B = batch, T = sequence, S = past and present, V = vocabulary

import type { PreTrainedModel, PreTrainedTokenizer, Tensor } from "@huggingface/transformers";
import { resolve } from "node:path";
import { messageOf, UserError } from "../core/errors.ts";
import type { Provider } from "../engines/index.ts";

export interface Client {
  readonly model: PreTrainedModel;
  /** Logits [B, T, V] of new tokens, given an attention mask [B, S] and what an earlier call left. */
  forward(
    ids: readonly (readonly number[])[],
    mask: readonly (readonly number[])[],
    past?: Past,
  ): Promise<{ readonly logits: Float32Array; readonly past: Past }>;
  dispose(): Promise<void>;
}

/** Keys and values of all layers, by input name. */
export type Past = Readonly<Record<string, Tensor>>;

/** Loads the model of an exported folder as any user of the library does; the processor runs it by default. */
export async function openClient(folder: string, provider?: Provider): Promise<Client> {
  const { AutoModelForCausalLM, Tensor } = await import("@huggingface/transformers");
  const model = await loading(folder, () =>
    AutoModelForCausalLM.from_pretrained(resolve(folder), {
      local_files_only: true,
      ...(provider && { session_options: { executionProviders: [provider] } }),
    }),
  );
  const integers = (rows: readonly (readonly number[])[]) =>
    new Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]!.length]);
  return {
    model,
    forward: async (ids, mask, past) => {
      const outputs = (await model.forward({
        input_ids: integers(ids),
        attention_mask: integers(mask),
        past_key_values: past ?? null,
      })) as Record<string, Tensor>;
      const cache = Object.entries(outputs)
        .filter(([name]) => name.startsWith("present."))
        .map(([name, tensor]) => [name.replace("present.", "past_key_values."), tensor] as const);
      return {
        logits: outputs["logits"]!.data as Float32Array,
        past: Object.fromEntries(cache),
      };
    },
    dispose: async () => {
      await model.dispose();
    },
  };
}

export async function openClientTokenizer(folder: string): Promise<PreTrainedTokenizer> {
  const { AutoTokenizer } = await import("@huggingface/transformers");
  return loading(folder, () =>
    AutoTokenizer.from_pretrained(resolve(folder), { local_files_only: true }),
  );
}

async function loading<T>(folder: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    throw new UserError(`@huggingface/transformers cannot load ${folder}: ${messageOf(cause)}`, {
      exitCode: 1,
      cause,
    });
  }
}
