// Names of models and data sets as people type them: short names, `org/name@revision`, `org/name/file.gguf`,
// `org/name:config@split`.

import { nearest, UserError } from "../core/errors.ts";

/** One revision of a repository on the hub. */
export interface HubRepo {
  readonly type: "model" | "dataset";
  /** `org/name`, or a bare name of the hub's first years. */
  readonly id: string;
  /** A branch, a tag, or a commit of 40 hexadecimal digits. */
  readonly revision: string;
  /** Of a model that is one file of the repository. */
  readonly file?: string;
}

export type DatasetSpec = Pick<HubRepo, "id"> &
  Readonly<Record<"config" | "split", string | undefined>>;

type Kind = HubRepo["type"];
const KINDS: Record<Kind, string> = { model: "model", dataset: "data set" };

const gpt2s = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"];
const wikitext = { id: "Salesforce/wikitext", config: "wikitext-2-raw-v1" };
/** Bare names that the hub itself forwards to an organisation, and short ones with the config that they mean. */
const ALIASES: Record<Kind, ReadonlyMap<string, { readonly id: string; config?: string }>> = {
  model: new Map([
    ...gpt2s.map((name) => [name, { id: `openai-community/${name}` }] as const),
    ["distilgpt2", { id: "distilbert/distilgpt2" }],
  ]),
  dataset: new Map([
    ["wikitext", wikitext],
    ["wikitext-2", wikitext],
    ["wikitext-103", { ...wikitext, config: "wikitext-103-raw-v1" }],
  ]),
};

const words = (text: string) => text.trim().split(/\s+/);

// For suggestions only; any id can be asked for. The first are embedded, not on the hub.
const pythias = words("14m 31m 70m 160m 410m 1b 1.4b 2.8b 6.9b 12b");
const KNOWN: Record<Kind, readonly string[]> = {
  model: [
    "tiny-gpt2",
    ...[...ALIASES.model].flatMap(([name, { id }]) => [name, id]),
    ...pythias.flatMap((size) => ["", "-deduped"].map((end) => `EleutherAI/pythia-${size}${end}`)),
    ...words(`TinyLlama/TinyLlama-1.1B-Chat-v1.0 HuggingFaceTB/SmolLM-135M HuggingFaceTB/SmolLM2-135M
      HuggingFaceTB/SmolLM2-360M meta-llama/Llama-2-7b-hf meta-llama/Meta-Llama-3-8B
      meta-llama/Llama-3.2-1B meta-llama/Llama-3.2-3B`),
  ],
  dataset: words(`moby-dick sotu wikitext wikitext-2 wikitext-103 Salesforce/wikitext
    EleutherAI/wikitext_document_level EleutherAI/lambada_openai roneneldan/TinyStories`),
};

/** `gpt2`, `org/name`, `org/name/folder/file.gguf`, each also with `@revision` and after `hf:`. */
export function parseModelName(text: string): HubRepo {
  const [, whole = "", revision = "main"] = /^(?:hf:)?([^@]*)(?:@(.*))?$/s.exec(text) ?? [];
  const [, name = whole, file] =
    /^([^/]+\/[^/]+)\/((?:[^./][^/]*\/)*[^./][^/]*\.gguf)$/i.exec(whole) ?? [];
  const id = idOf("model", name);
  // A revision becomes a path under refs/.
  if (!/^\w[\w./+-]*$/.test(revision) || /\.\.|\/\/|\/\.|\/$/.test(revision))
    throw new UserError(`"${revision}" cannot be a revision of model "${name}"`, {
      hint: "name a branch, a tag or a commit after @, for instance gpt2@main",
    });
  return { type: "model", id, revision, ...(file && { file }) };
}

/** `wikitext`, `org/name`, `org/name:config`, `org/name:config@split`, each also after `hf:`. */
export function parseDatasetName(text: string): DatasetSpec {
  const parts = /^(?:hf:)?([^@:]*)(?::([^@]*))?(?:@(.*))?$/s.exec(text) ?? [];
  const [, name = "", config = ALIASES.dataset.get(name)?.config, split] = parts;
  const spec = { id: idOf("dataset", name), config, split };
  for (const what of ["config", "split"] as const)
    if (!/^\w[\w.+-]*$/.test(spec[what] ?? "default"))
      throw new UserError(`"${spec[what]}" cannot be the ${what} of data set "${name}"`, {
        hint: "write id:config@split, for instance Salesforce/wikitext:wikitext-2-raw-v1@test",
      });
  return spec;
}

/** `model "org/name"`. */
export const nameOf = ({ type, id }: Pick<HubRepo, "type" | "id">) => `${KINDS[type]} "${id}"`;

/** `did you mean "…"?`, where a known name is near; the organisation may be left out. */
export function suggestion({ type, id }: Pick<HubRepo, "type" | "id">): string | undefined {
  const known = KNOWN[type];
  const near = nearest(id, [...known, ...known.map(bareOf)]);
  const found = known.find((name) => [name, bareOf(name)].includes(near ?? ""));
  return found && found !== id ? `did you mean "${found}"?` : undefined;
}

/** True for a full commit hash, which names one state forever. */
export const isCommit = (revision: string) => /^[0-9a-f]{40}$/.test(revision);

/** True for `name` or `org/name`, by the hub's own rules; they also keep a name from being a path. */
export const isName = (text: string) =>
  /^(?:[\w.-]{1,96}\/)?[\w.-]{1,96}$/.test(text) &&
  !/(^|\/)[.-]|[.-](\/|$)|--|\.\.|\.git$/.test(text);

/** The names under which a cache may hold a repository. */
export function namesOf({ type, id }: HubRepo): string[] {
  const bare = bareOf(id);
  return ALIASES[type].get(bare)?.id === id ? [id, bare] : [id];
}

function idOf(type: Kind, name: string): string {
  if (!isName(name))
    throw new UserError(`"${name}" is neither an existing path nor the name of a ${KINDS[type]}`, {
      hint: suggestion({ type, id: name }) ?? "check the path (see ssa runs); a name is org/name",
    });
  return ALIASES[type].get(name)?.id ?? name;
}

const bareOf = (id: string) => id.slice(id.indexOf("/") + 1);
