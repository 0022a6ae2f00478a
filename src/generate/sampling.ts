// How the next token is drawn: as asked, else as the model's generation_config.json says.

import type { JsonObject } from "../files/json.ts";
import { configReader } from "../models/config.ts";

export interface Sampling {
  /** Divides the logits; 0: greedy, the most probable token each time. */
  readonly temperature: number;
  /** Only the k most probable tokens; 0: all. */
  readonly topK: number;
  /** Only the most probable tokens that together have this probability (Holtzman et al., 2020). */
  readonly topP: number;
  /** Makes tokens that are there already less probable, above 1 (Keskar et al., 2019). */
  readonly repetitionPenalty: number;
}

/** Undefined: not asked. */
export type AskedSampling = { readonly [Key in keyof Sampling]?: Sampling[Key] | undefined };

/** What transformers takes for what a file that says how to sample leaves out; llama.cpp, where none says it. */
const transformers: Sampling = { temperature: 1, topK: 50, topP: 1, repetitionPenalty: 1 };
const unsaid: Sampling = { temperature: 0.8, topK: 40, topP: 0.95, repetitionPenalty: 1 };

/** What is asked wins over the file, whose path is for messages; any way of sampling over its greedy one. */
export function samplingOf(path: string, json: JsonObject, asked: AskedSampling): Sampling {
  const file = configReader(path, json);
  const isSaid = ["do_sample", "temperature", "top_k", "top_p"].some(file.has);
  const fallback = isSaid ? transformers : unsaid;
  const isGreedy = !file.flag("do_sample", true) && (asked.topK ?? asked.topP) === undefined;
  const penalty = file.number("repetition_penalty", fallback.repetitionPenalty);
  const temperature = file.number("temperature", fallback.temperature);
  return {
    temperature: asked.temperature ?? (isGreedy ? 0 : temperature),
    topK: asked.topK ?? Math.max(0, file.number("top_k", fallback.topK)),
    topP: asked.topP ?? file.number("top_p", fallback.topP),
    repetitionPenalty: asked.repetitionPenalty ?? penalty,
  };
}
