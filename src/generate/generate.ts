// `ssa generate`: text from @huggingface/transformers on the exported graph, which is made once per model and kept.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { loadChatTemplate, noTemplate } from "../data/chat.ts";
import type { Message } from "../data/chat-answers.ts";
import { loadTokenizer } from "../data/tokenizer/tokenizer.ts";
import { readJson, readJsonIfSound } from "../files/json.ts";
import { modelFiles } from "../files/names.ts";
import { sha256OfFile } from "../files/safetensors.ts";
import type { Quantization } from "../model/blocks.ts";
import { fingerprintOf } from "../model/fingerprint.ts";
import type { OpenOptions } from "../model/open.ts";
import type { OpenedModel } from "../model/opened.ts";
import { openNamed, type Places, placesOf } from "../model/places.ts";
import type { Provider } from "../engines/index.ts";
import { configReader } from "../models/config.ts";
import { readModel } from "../models/index.ts";
import { openClient, openClientTokenizer } from "../export/client.ts";
import { convert } from "../export/convert.ts";
import { companionsOf } from "../export/model-folder.ts";
import { continuationStreamer, nucleus } from "./streamer.ts";

export interface CacheOptions extends OpenOptions, Partial<Places> {
  /** As `openModel` takes it, or an ONNX export, which is used as it is. */
  readonly model: string;
  /** Where exports are kept, each in a folder named by its checksum; a folder of `cacheDir` by default. */
  readonly cacheFolder?: string;
  /** Told what begins. */
  readonly onStage?: (stage: string) => void;
}

export interface GeneratorOptions extends CacheOptions {
  /** 100 by default. */
  readonly maxNewTokens?: number | undefined;
  /** Runs the graph; the processor by default. */
  readonly provider?: Provider;
  /** What is not given is as the model's generation_config.json says. */
  readonly sampling?: AskedSampling;
  /** Makes what is drawn repeatable, from prompt to prompt; 0 by default. */
  readonly seed?: number;
  /** Of conversations, as `loadChatTemplate` takes it. */
  readonly chatTemplate?: string | null;
  /** The time that it writes; the present one by default. */
  readonly now?: Date;
}

/** A text, or messages that a chat template makes one of. */
export type Prompt = string | readonly Message[];

interface AnswerOptions {
  /** Told the text as it comes. */
  readonly onText?: ((text: string) => void) | undefined;
  /** Ends the generation after the present token, or piece of a long prompt. */
  readonly signal?: AbortSignal | undefined;
}

type GenerateOptions = GeneratorOptions & AnswerOptions & { readonly prompt: Prompt };

/** Continues a prompt. */
export async function generate(options: GenerateOptions) {
  await using generator = await openGenerator(options);
  return await generator.answer(options.prompt, options);
}

// The client reads no other form.
const NO_TOKENIZER =
  "put that of the model that it comes from beside config.json; of vocab.json and merges.txt " +
  "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) makes one in Python";

/** Loads a model's export to continue prompts, one after another. */
export async function openGenerator(options: GeneratorOptions) {
  const { maxNewTokens = 100, seed = 0, onStage, chatTemplate, now = new Date() } = options;
  let own = options.model; // the folder that messages speak of
  const onSource = ({ name, folder }: OpenedModel) => {
    own = folder;
    if (existsSync(join(own, modelFiles.tokenizer))) return;
    throw new UserError(`${name} holds no ${modelFiles.tokenizer}, which a prompt needs`, {
      hint: NO_TOKENIZER,
    });
  };
  const folder = await cachedExport(options, onSource);
  onStage?.("loading");
  const { InterruptableStoppingCriteria, random } = await import("@huggingface/transformers");
  const tokenizer = await openClientTokenizer(folder).catch(async (error: unknown) => {
    await loadTokenizer(own); // which says better what it lacks
    throw error;
  });
  const configPath = join(folder, modelFiles.config);
  const { maxCached } = readModel(configPath, await readJson(configPath));
  const generationPath = join(folder, modelFiles.generationConfig);
  const defaults = (await readJsonIfSound(generationPath)) ?? {};
  const sampling = samplingOf(generationPath, defaults, options.sampling ?? {});
  const { temperature, topK, topP, repetitionPenalty } = sampling;
  const isGreedy = temperature === 0;
  const client = await openClient(folder, options.provider);

  /** As it was trained: the text of our own template, and the token that ends an answer in it. */
  const chat = async (messages: readonly Message[]) => {
    const own = await loadTokenizer(folder);
    const template = await loadChatTemplate(own, chatTemplate, now);
    if (!template) throw noTemplate(options.model);
    const text = template.render({ messages }, true);
    const end = own.encode([{ text: template.endOfTurn(), isTarget: true, isLast: true }]).ids;
    const known = [client.model.generation_config?.eos_token_id ?? []].flat();
    return { text, eos_token_id: end.length === 1 ? [...known, end[0]!] : known };
  };

  const answer = async (prompt: Prompt, { onText, signal }: AnswerOptions = {}) => {
    const { text: given, ...endings } =
      typeof prompt === "string" ? { text: prompt } : await chat(prompt);
    const add_special_tokens = typeof prompt === "string";
    const inputs = tokenizer(given, { add_special_tokens }) as Inputs;
    const ids = inputs["input_ids"]!;
    const numPromptTokens = ids.dims.at(-1)!;
    const room = maxCached - numPromptTokens;
    if (numPromptTokens === 0)
      throw new UserError("the prompt has no tokens", { hint: "write some text" });
    const problem = `the prompt has ${numPromptTokens} tokens, the model ends at ${maxCached}`;
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
    try {
      const past = await client.read(Array.from(ids.data, Number), signal);
      const continued = async () =>
        client.model.generate({
          ...inputs,
          ...past,
          ...endings,
          max_new_tokens: Math.min(maxNewTokens, room),
          num_beams: 1,
          do_sample: !isGreedy,
          temperature: temperature || 1,
          top_k: topK,
          repetition_penalty: repetitionPenalty,
          ...(!isGreedy && topP < 1 && { logits_processor: await nucleus(topK, topP) }),
          stopping_criteria: interruption,
          streamer,
        }) as Promise<{ readonly data: BigInt64Array }>;
      const sequences = signal?.aborted ? ids : await continued();
      const tokens = Array.from(sequences.data.subarray(numPromptTokens), Number);
      const ends = { [room]: "context", [maxNewTokens]: "maxNewTokens" } as const;
      /** `end` is the model's own end-of-text token, `context` the end of its positions. */
      const stop = interruption.interrupted ? "interrupted" : (ends[tokens.length] ?? "end");
      const text = pieces.join(""); // without the prompt
      return { text, numPromptTokens, tokens, stop, sampling, ...(!isGreedy && { seed }) } as const;
    } finally {
      signal?.removeEventListener("abort", interrupt);
    }
  };
  const dispose = async () => void (await client.dispose());
  return { answer, dispose, [Symbol.asyncDispose]: dispose };
}

type Inputs = Record<string, { readonly dims: readonly number[]; readonly data: BigInt64Array }>;

/** Raised when what is written changes, so that no older export is used. */
const EXPORT_VERSION = 1;

/** The folder of a model's ONNX export, made now if it is not in the cache yet; `onSource` may refuse what it is made of. */
export async function cachedExport(
  options: CacheOptions,
  onSource?: (opened: OpenedModel) => void,
): Promise<string> {
  const { model, adapter, temperatures, quantization = null, onStage } = options;
  const { cacheFolder = join(placesOf(options).cacheDir, "exports") } = options;
  const has = (name: string) => existsSync(join(model, name));
  if (has("onnx")) {
    if (!adapter && !temperatures && !quantization) return model;
    if (!has(modelFiles.weights) && !has(modelFiles.index))
      throw new UserError(`${model} is an ONNX export, which runs only as it is`, {
        hint: "leave out what is put on it (--quantize, --adapter), or name the model that it was made of",
      });
  }
  onStage?.("looking for the model's export");
  const opened = await openNamed(model, options);
  onSource?.(opened);
  const out = join(cacheFolder, await keyOf(opened, quantization));
  const isThere = () => existsSync(join(out, modelFiles.config));
  if (isThere()) return out;
  await convert({ ...options, target: "onnx", out }).catch((error: unknown) => {
    if (!isThere()) throw error; // else another process was faster
  });
  return out;
}

/** Of the model and of its folder's small files, which an export has copies of. */
async function keyOf(opened: OpenedModel, spec: Quantization | null): Promise<string> {
  const { folder, chatTemplate } = opened;
  const hash = createHash("sha256").update(`${EXPORT_VERSION} `);
  hash.update(JSON.stringify(await fingerprintOf(opened, spec ?? opened.quantized?.spec)));
  const names = [modelFiles.config, ...(await companionsOf(folder))];
  for (const path of [...names.map((name) => join(folder, name)), chatTemplate ?? []].flat())
    hash.update(` ${await sha256OfFile(path)}`);
  return hash.digest("hex").slice(0, 32);
}

/** How the next token is drawn. */
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
