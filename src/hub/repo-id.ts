// Names of models and data sets as people type them: short names, `org/name@revision`, `org/name:config@split`.

import { nearest, UserError } from "../core/errors.ts";

/** One revision of a repository on the hub. */
export interface HubRepo {
  readonly type: "model" | "dataset";
  /** `org/name`, or a bare name of the hub's first years. */
  readonly id: string;
  /** A branch, a tag, or a commit of 40 hexadecimal digits. */
  readonly revision: string;
  /** Other names under which a cache may hold it. */
  readonly formerIds: readonly string[];
}

export interface DatasetSpec {
  readonly id: string;
  readonly formerIds: readonly string[];
  readonly config: string | undefined;
  readonly split: string | undefined;
}

/** Bare names that the hub itself forwards to an organisation. */
const MODEL_ALIASES: Readonly<Record<string, string>> = {
  gpt2: "openai-community/gpt2",
  "gpt2-medium": "openai-community/gpt2-medium",
  "gpt2-large": "openai-community/gpt2-large",
  "gpt2-xl": "openai-community/gpt2-xl",
  distilgpt2: "distilbert/distilgpt2",
};

/** Short names of data sets, with the config meant when none is named. */
const DATASET_ALIASES: Readonly<Record<string, { readonly id: string; readonly config: string }>> =
  {
    wikitext: { id: "Salesforce/wikitext", config: "wikitext-2-raw-v1" },
    "wikitext-2": { id: "Salesforce/wikitext", config: "wikitext-2-raw-v1" },
    "wikitext-103": { id: "Salesforce/wikitext", config: "wikitext-103-raw-v1" },
  };

// For suggestions only; any id can be asked for. The first are embedded, not on the hub.
const KNOWN_MODELS = [
  "tiny-gpt2",
  ...Object.keys(MODEL_ALIASES),
  ...Object.values(MODEL_ALIASES),
  ...["14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b"].flatMap((size) => [
    `EleutherAI/pythia-${size}`,
    `EleutherAI/pythia-${size}-deduped`,
  ]),
  "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
  "HuggingFaceTB/SmolLM-135M",
  "HuggingFaceTB/SmolLM2-135M",
  "HuggingFaceTB/SmolLM2-360M",
  "meta-llama/Llama-2-7b-hf",
  "meta-llama/Meta-Llama-3-8B",
  "meta-llama/Llama-3.2-1B",
  "meta-llama/Llama-3.2-3B",
];
const KNOWN_DATASETS = [
  "moby-dick",
  "sotu",
  ...Object.keys(DATASET_ALIASES),
  "Salesforce/wikitext",
  "EleutherAI/wikitext_document_level",
  "EleutherAI/lambada_openai",
  "roneneldan/TinyStories",
];

/** True for `hf:name`, which means the hub even where a file or folder of that name exists. */
export function isHubOnly(name: string): boolean {
  return name.startsWith("hf:");
}

/** `gpt2`, `org/name`, `org/name@revision`, each also after `hf:`. */
export function parseModelName(text: string): HubRepo {
  const [name, revision = "main"] = splitOnce(withoutPrefix(text), "@");
  checkId("model", name);
  if (!isRevision(revision))
    throw new UserError(`"${revision}" cannot be a revision of model "${name}"`, {
      hint: "name a branch, a tag or a commit after @, for instance gpt2@main",
    });
  const id = MODEL_ALIASES[name] ?? name;
  return { type: "model", id, revision, formerIds: formerIdsOf(id, name) };
}

/** `wikitext`, `org/name`, `org/name:config`, `org/name:config@split`, each also after `hf:`. */
export function parseDatasetName(text: string): DatasetSpec {
  const [path, split] = splitOnce(withoutPrefix(text), "@");
  const [name, config] = splitOnce(path, ":");
  checkId("dataset", name);
  for (const [what, part] of Object.entries({ config, split })) {
    if (part !== undefined && !/^[\w][\w.+-]*$/.test(part))
      throw new UserError(`"${part}" cannot be the ${what} of data set "${name}"`, {
        hint: "write id:config@split, for instance Salesforce/wikitext:wikitext-2-raw-v1@test",
      });
  }
  const alias = DATASET_ALIASES[name];
  const id = alias?.id ?? name;
  return { id, formerIds: formerIdsOf(id, name), config: config ?? alias?.config, split };
}

/** The known model or data set nearest to a mistyped one, if any; the organisation may be left out. */
export function nearestName(type: HubRepo["type"], name: string): string | undefined {
  const known = new Map<string, string>();
  for (const id of type === "model" ? KNOWN_MODELS : KNOWN_DATASETS)
    for (const word of [id, id.slice(id.indexOf("/") + 1)])
      if (word === id || !known.has(word)) known.set(word, id);
  const found = nearest(name, known.keys());
  const id = found === undefined ? undefined : known.get(found);
  return id === name ? undefined : id;
}

/** True for a full commit hash, which names one state forever. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/** True for `name` or `org/name`, by the hub's own rules; they also keep a name from being a path. */
export function isName(text: string): boolean {
  return (
    /^(?:[\w.-]{1,96}\/)?[\w.-]{1,96}$/.test(text) &&
    !/(^|\/)[.-]|[.-](\/|$)|--|\.\.|\.git$/.test(text)
  );
}

function checkId(type: HubRepo["type"], id: string): void {
  if (isName(id)) return;
  const what = type === "model" ? "model" : "data set";
  throw new UserError(
    `"${id}" is neither an existing path nor the name of a ${what}, which is org/name with letters, digits, "-", "_" and "."`,
    { hint: suggestion(type, id) ?? "check the path" },
  );
}

/** `did you mean "…"?`, where a known name is near. */
export function suggestion(type: HubRepo["type"], name: string): string | undefined {
  const near = nearestName(type, name);
  return near === undefined ? undefined : `did you mean "${near}"?`;
}

// A revision becomes a path under refs/.
function isRevision(text: string): boolean {
  return /^\w[\w./+-]*$/.test(text) && !/\.\.|\/\/|\/\.|\/$/.test(text);
}

function formerIdsOf(id: string, name: string): readonly string[] {
  if (name !== id) return [name];
  const bare = id.slice(id.indexOf("/") + 1);
  const alias = MODEL_ALIASES[bare] ?? DATASET_ALIASES[bare]?.id;
  return alias === id ? [bare] : [];
}

function withoutPrefix(text: string): string {
  return isHubOnly(text) ? text.slice("hf:".length) : text;
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}
