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

export interface DatasetSpec extends Pick<HubRepo, "id" | "formerIds"> {
  readonly config: string | undefined;
  readonly split: string | undefined;
}

const KINDS = { model: "model", dataset: "data set" } satisfies Record<HubRepo["type"], string>;

type Alias = readonly [name: string, meant: { readonly id: string; readonly config?: string }];
const gpt2s = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"].map((name): Alias => [
  name,
  { id: `openai-community/${name}` },
]);
const wikitext = { id: "Salesforce/wikitext", config: "wikitext-2-raw-v1" };
/** Bare names that the hub itself forwards to an organisation, and short ones with the config that they mean. */
const ALIASES = {
  model: new Map([...gpt2s, ["distilgpt2", { id: "distilbert/distilgpt2" }]]),
  dataset: new Map<Alias[0], Alias[1]>([
    ["wikitext", wikitext],
    ["wikitext-2", wikitext],
    ["wikitext-103", { ...wikitext, config: "wikitext-103-raw-v1" }],
  ]),
};

// For suggestions only; any id can be asked for. The first are embedded, not on the hub.
const pythias = words("14m 31m 70m 160m 410m 1b 1.4b 2.8b 6.9b 12b").map(
  (size) => `EleutherAI/pythia-${size}`,
);
const KNOWN = {
  model: [
    "tiny-gpt2",
    ...[...ALIASES.model].flatMap(([name, { id }]) => [name, id]),
    ...pythias.flatMap((id) => [id, `${id}-deduped`]),
    ...words(`TinyLlama/TinyLlama-1.1B-Chat-v1.0 HuggingFaceTB/SmolLM-135M HuggingFaceTB/SmolLM2-135M
      HuggingFaceTB/SmolLM2-360M meta-llama/Llama-2-7b-hf meta-llama/Meta-Llama-3-8B
      meta-llama/Llama-3.2-1B meta-llama/Llama-3.2-3B`),
  ],
  dataset: words(`moby-dick sotu wikitext wikitext-2 wikitext-103 Salesforce/wikitext
    EleutherAI/wikitext_document_level EleutherAI/lambada_openai roneneldan/TinyStories`),
};

/** `gpt2`, `org/name`, `org/name@revision`, each also after `hf:`. */
export function parseModelName(text: string): HubRepo {
  const [, name = "", revision = "main"] = /^(?:hf:)?([^@]*)(?:@(.*))?$/s.exec(text) ?? [];
  checkName("model", name);
  // A revision becomes a path under refs/.
  if (!/^\w[\w./+-]*$/.test(revision) || /\.\.|\/\/|\/\.|\/$/.test(revision))
    throw new UserError(`"${revision}" cannot be a revision of model "${name}"`, {
      hint: "name a branch, a tag or a commit after @, for instance gpt2@main",
    });
  return { type: "model", revision, ...idsOf("model", name) };
}

/** `wikitext`, `org/name`, `org/name:config`, `org/name:config@split`, each also after `hf:`. */
export function parseDatasetName(text: string): DatasetSpec {
  const parts = /^(?:hf:)?([^@:]*)(?::([^@]*))?(?:@(.*))?$/s.exec(text) ?? [];
  const [, name = "", named, split] = parts;
  checkName("dataset", name);
  const config = named ?? ALIASES.dataset.get(name)?.config;
  for (const [what, part] of Object.entries({ config, split })) {
    if (part !== undefined && !/^[\w][\w.+-]*$/.test(part))
      throw new UserError(`"${part}" cannot be the ${what} of data set "${name}"`, {
        hint: "write id:config@split, for instance Salesforce/wikitext:wikitext-2-raw-v1@test",
      });
  }
  return { ...idsOf("dataset", name), config, split };
}

/** `model "org/name"`. */
export function nameOf({ type, id }: Pick<HubRepo, "type" | "id">): string {
  return `${KINDS[type]} "${id}"`;
}

/** The known model or data set nearest to a mistyped one, if any; the organisation may be left out. */
export function nearestName(type: HubRepo["type"], name: string): string | undefined {
  const found = nearest(name, [...KNOWN[type], ...KNOWN[type].map(bareOf)]);
  const id = KNOWN[type].find((known) => known === found || bareOf(known) === found);
  return id === name ? undefined : id;
}

/** `did you mean "…"?`, where a known name is near. */
export function suggestion({ type, id }: Pick<HubRepo, "type" | "id">): string | undefined {
  const near = nearestName(type, id);
  return near && `did you mean "${near}"?`;
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

function checkName(type: HubRepo["type"], id: string): void {
  if (isName(id)) return;
  throw new UserError(
    `"${id}" is neither an existing path nor the name of a ${KINDS[type]}, which is org/name with letters, digits, "-", "_" and "."`,
    { hint: suggestion({ type, id }) ?? "check the path" },
  );
}

function idsOf(type: HubRepo["type"], name: string): Pick<HubRepo, "id" | "formerIds"> {
  const id = ALIASES[type].get(name)?.id ?? name;
  const bare = bareOf(id);
  return { id, formerIds: ALIASES[type].get(bare)?.id === id ? [bare] : [] };
}

const bareOf = (id: string) => id.slice(id.indexOf("/") + 1);

function words(text: string): string[] {
  return text.trim().split(/\s+/);
}
