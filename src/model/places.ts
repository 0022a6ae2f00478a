// From names to what they name: models and data in this package, on this machine, or brought from the hub; data as a model reads it.

import { existsSync } from "node:fs";
import { availableParallelism, homedir } from "node:os";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { loadChatTemplate } from "../data/chat.ts";
import { type Corpus, type CorpusOptions, loadCorpus, loadTokenCorpus } from "../data/corpus.ts";
import { limitSplit } from "../data/limit.ts";
import { firstFrom, joinedBy, type Remake } from "../data/document.ts";
import { EMBEDDED_DATA, embeddedData, findDataFiles, isDataPath } from "../data/readers/files.ts";
import type { DataFiles, DataSplit } from "../data/readers/files.ts";
import { formats } from "../data/readers/formats.ts";
import type { TokenizeProgress } from "../data/tokenizer/tokenize.ts";
import type { Tokenizer } from "../data/tokenizer/read-tokenizer.ts";
import { loadTokenizer } from "../data/tokenizer/tokenizer.ts";
import { type Engine, type OnChoice, openEngine } from "../engines/index.ts";
import type { Ranks } from "../engines/ranks/lead.ts";
import { packageRoot } from "../files/package-root.ts";
import { resolveDataset } from "../hub/dataset.ts";
import { type DownloadProgress, type HubSettings, hubSettings } from "../hub/environment.ts";
import { resolveModel } from "../hub/model.ts";
import { parseDatasetName, parseModelName } from "../hub/repo-id.ts";
import { folderOfGguf, isGguf } from "./gguf.ts";
import { openModel, type OpenOptions } from "./open.ts";
import type { OpenedModel } from "./opened.ts";

/** Where what is named is found and kept, and who is told meanwhile. */
export interface Places {
  readonly hub: HubSettings;
  /** For what can be made again, such as the tokens of texts. */
  readonly cacheDir: string;
  readonly onNote?: ((note: string) => void) | undefined;
  /** How far a download or the tokenizing is; undefined: it is over. */
  readonly onProgress?: ((at: DownloadProgress | TokenizeProgress | undefined) => void) | undefined;
  /** Which device `auto` took. */
  readonly onChoice?: OnChoice | undefined;
  /** CUDA_VISIBLE_DEVICES. */
  readonly visibleCards?: string | undefined;
  /** Other processes that compute with this one. */
  readonly ranks?: Ranks | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Without settings: this user's own caches and token, where no variable says otherwise. What is no place stays out. */
export function placesOf(given: Partial<Places>): Places {
  const { onNote, onProgress, onChoice, visibleCards, ranks, signal } = given;
  const { hub = hubSettings({}, homedir()), cacheDir = join(homedir(), ".cache", "ssa") } = given;
  return { hub, cacheDir, onNote, onProgress, onChoice, visibleCards, ranks, signal };
}

/** Models that ship with the package, in its checkpoints/. */
const EMBEDDED_MODELS: readonly string[] = ["tiny-gpt2"];

/** Refuses, before anything is fetched, what can be no name. */
export async function checkNames(model: string, ...data: readonly (string | null)[]) {
  if (!existsSync(model) && !EMBEDDED_MODELS.includes(model)) parseModelName(model);
  for (const name of data)
    if (name !== null && isDataPath(name)) await findDataFiles(name);
    else if (name !== null && !EMBEDDED_DATA.includes(name)) parseDatasetName(name);
}

/** How a model is opened by any name; a folder that exists wins over embedded names and those of the hub. */
export function opening(places: Places, root = packageRoot()): OpenOptions {
  const { hub, cacheDir, onNote, onProgress, signal } = places;
  const resolve = async (name: string) => {
    if (EMBEDDED_MODELS.includes(name) && !existsSync(name)) return join(root, "checkpoints", name);
    const isHere = await isGguf(name);
    const path = isHere ? name : await resolveModel(name, hub, { onProgress, onNote, signal });
    return (await isGguf(path)) ? folderOfGguf(path, join(cacheDir, "gguf"), onNote) : path;
  };
  return {
    resolve: (name) => resolve(name).finally(() => onProgress?.(undefined)),
    cacheDir,
    ...(onNote && { onNote }),
  };
}

/** Opens a model by any name, unless `resolve` says what names are. */
export const openNamed = async (name: string, options: OpenOptions & Partial<Places> = {}) =>
  openModel(name, { ...opening(placesOf(options)), ...options });

const WIKITEXT = "Salesforce/wikitext";

/**
 * The files of a data source, of the splits that are needed, and the split that the name itself chose; where only a
 * part is wanted, each comes from the hub when it is reached. Where rows are no texts, `remake` makes some of them: of WikiText's one, as the published figures need.
 */
export async function findData(
  name: string,
  { hub, onNote, onProgress, signal }: Places,
  splits?: readonly string[],
  isPart = false,
): Promise<DataFiles & { readonly remake?: Remake }> {
  if (isDataPath(name)) {
    const data = await findDataFiles(name);
    if (data.note !== undefined) onNote?.(data.note);
    return data;
  }
  if (EMBEDDED_DATA.includes(name)) return embeddedData(name);
  const { split } = parseDatasetName(name);
  const options = { ...(splits && { splits }), isPart, onProgress, onNote, signal };
  const isDone = () => onProgress?.(undefined);
  const { files, id, config, bring } = await resolveDataset(name, hub, options).finally(isDone);
  const remake = id === WIKITEXT && { remake: joinedBy("\n\n") };
  const brought = bring && { bring: (file: string) => bring(file).finally(isDone) };
  return { name: `${id}:${config}`, splits: files, split, ...brought, ...remake };
}

/** How data is read, on this many threads. */
export const reading = (
  { cacheDir, onNote, onProgress, signal }: Places,
  threads: number | "auto",
) => ({
  cacheFolder: join(cacheDir, "tokens"),
  threads: threads === "auto" ? availableParallelism() : threads,
  onNote,
  ...(onProgress && { onProgress }),
  ...(signal && { signal }),
});

interface ReadOptions extends CorpusOptions {
  readonly chatTemplate?: string | null;
  readonly maxTokens?: number | null;
}

/** Of open models, whose files stay as they are: a large vocabulary takes half a second to read. */
const tokenizers = new WeakMap<OpenedModel["model"], Promise<Tokenizer>>();

/** A model's own tokenizer, read once. */
export function tokenizerOf({ model, folder }: OpenedModel): Promise<Tokenizer> {
  const tokenizer = tokenizers.get(model) ?? loadTokenizer(folder);
  tokenizers.set(model, tokenizer);
  return tokenizer;
}

/**
 * Reads a split for a model, through the model's own tokenizer, which token files do not need; an id beyond the model's
 * vocabulary is refused where it occurs.
 */
export async function readCorpus(
  opened: OpenedModel,
  split: DataSplit,
  { chatTemplate: asked, maxTokens, ...others }: ReadOptions = {},
): Promise<Corpus & { readonly tokenizer?: Tokenizer; readonly chatTemplate?: string }> {
  const { vocabSize } = opened.model.config;
  const chatTemplate = asked ?? opened.chatTemplate;
  const { format = "auto" } = others;
  if (["txt", "bin"].includes(split.format) && !["auto", "text"].includes(format))
    throw new UserError(`${split.description} has no rows, which could be of the kind ${format}`, {
      hint: "rows are in .jsonl, .json, .csv, .tsv, .parquet and .arrow; for text leave out --format",
    });
  if (formats[split.format].holds === "tokens")
    return loadTokenCorpus({ ...split, limit: maxTokens ?? Infinity }, vocabSize);
  const tokenizer = await tokenizerOf(opened);
  const template = await loadChatTemplate(tokenizer, chatTemplate);
  const instructTemplate = await loadChatTemplate(tokenizer, "alpaca");
  const options = { template, instructTemplate, ...others };
  const part = maxTokens ? await limitSplit(split, tokenizer, maxTokens, options) : split;
  const corpus = await loadCorpus(part, tokenizer, options);
  // One that the model does not have by itself belongs beside what is trained with it.
  const isNew = corpus.isRendered && (chatTemplate != null || !template);
  const source = isNew && { chatTemplate: (template ?? instructTemplate)!.source };
  const read = { ...corpus, tokenizer, ...source };
  if (tokenizer.vocabSize <= vocabSize) return read;
  // More tokens than the model knows do no harm until one occurs, as a [PAD] that came later never does.
  const unknown = corpus.texts.map(({ tokens }) => firstFrom(vocabSize, tokens)).find(Boolean)?.id;
  if (unknown === undefined) return read;
  const token = JSON.stringify(tokenizer.pieceOf(unknown));
  const given = `the tokenizer gives ${token} the id ${unknown}`;
  throw new UserError(`${opened.folder}: ${given}, and the model knows ${vocabSize} ids`, {
    hint: "tokenizer and config.json are not of the same model, or its embedding was not resized",
  });
}

/** Starts an engine for `work`, with which it ends. */
export async function withEngine<T>(
  { device, threads }: { readonly device: string; readonly threads: number | "auto" },
  places: Pick<Places, "onChoice" | "visibleCards" | "ranks" | "signal">,
  work: (engine: Engine) => Promise<T>,
): Promise<T> {
  const { onChoice, visibleCards, ranks, signal } = places;
  const options = { threads: threads === "auto" ? 0 : threads, onChoice, visibleCards };
  const own = await openEngine(device, { ...options, ranksHere: ranks?.ranksHere ?? 1 });
  let engine = own;
  try {
    if (ranks) engine = await ranks.join(own, device, options.threads, signal);
    return await work(engine);
  } finally {
    await engine.dispose();
  }
}
