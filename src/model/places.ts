// From names to what they name: models and data in this package, on this machine, or brought from the hub.

import { existsSync } from "node:fs";
import { availableParallelism, homedir } from "node:os";
import { join } from "node:path";
import { EMBEDDED_DATA, embeddedData } from "../data/readers/embedded.ts";
import { type DataFiles, describeUnread, findDataFiles } from "../data/readers/files.ts";
import { isDataPath } from "../data/readers/formats.ts";
import type { TokenizeProgress } from "../data/tokenizer/tokenize.ts";
import type { OnChoice } from "../engines/index.ts";
import { packageRoot } from "../files/package-root.ts";
import { resolveDataset } from "../hub/dataset.ts";
import { type DownloadProgress, type HubSettings, hubSettings } from "../hub/environment.ts";
import { parseDatasetName, parseModelName } from "../hub/repo-id.ts";
import type { OpenOptions } from "./open.ts";
import type { ReadOptions } from "./read-corpus.ts";
import { EMBEDDED_MODELS, modelResolver } from "./resolve.ts";

/** Where what is named is found and kept, and who is told meanwhile. */
export interface Places {
  readonly hub: HubSettings;
  /** For what can be made again, such as the tokens of texts. */
  readonly cacheDir: string;
  readonly onNote?: ((note: string) => void) | undefined;
  /** How far a download or the tokenizing is; undefined: it is over. */
  readonly onProgress?:
    | ((progress: DownloadProgress | TokenizeProgress | undefined) => void)
    | undefined;
  /** Which device `auto` took. */
  readonly onChoice?: OnChoice | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type PlaceOptions = { readonly [Key in keyof Places]?: Places[Key] | undefined };

/** Without settings: the caches of this user, the hub as nobody in particular. */
export function placesOf({ hub, cacheDir, ...told }: PlaceOptions): Places {
  return {
    hub: hub ?? hubSettings({}, homedir()),
    cacheDir: cacheDir ?? join(homedir(), ".cache", "ssa"),
    ...told,
  };
}

/** Refuses, before anything is fetched, what can be no model's name. */
export function checkModel(name: string): void {
  if (!existsSync(name) && !EMBEDDED_MODELS.includes(name)) parseModelName(name);
}

/** Refuses, before anything is fetched, what can be no data's name. */
export async function checkData(name: string): Promise<void> {
  if (isDataPath(name)) await findDataFiles(name);
  else if (!EMBEDDED_DATA.includes(name)) parseDatasetName(name);
}

/** How a model is opened by any name. */
export function opening({ hub, onNote, onProgress, signal }: Places): OpenOptions {
  const find = modelResolver(hub, packageRoot(), { onProgress, signal });
  return {
    resolve: (name) => find(name).finally(() => onProgress?.(undefined)),
    ...(onNote && { onNote }),
  };
}

export interface NamedData extends DataFiles {
  /** What joins rows to one text; absent where each row is a text. */
  readonly separator?: string;
  /** A split that the name itself chose. */
  readonly split?: string | undefined;
}

const WIKITEXT = "Salesforce/wikitext";

/**
 * The files of a data source, of the splits that are needed; WikiText's rows make one text, joined as the published
 * figures need.
 */
export async function findData(
  name: string,
  { hub, onNote, onProgress, signal }: Places,
  splits?: readonly string[],
): Promise<NamedData> {
  if (isDataPath(name)) {
    const data = await findDataFiles(name);
    const unread = describeUnread(data);
    if (unread !== undefined) onNote?.(unread);
    return data;
  }
  if (EMBEDDED_DATA.includes(name)) return embeddedData(name);
  const { split } = parseDatasetName(name);
  const options = { ...(splits && { splits }), onProgress, signal };
  const { files, id, config } = await resolveDataset(name, hub, options).finally(() =>
    onProgress?.(undefined),
  );
  const separator = id === WIKITEXT && { separator: "\n\n" };
  return { name: `${id}:${config}`, splits: files, split, ...separator };
}

/** How data is read, on this many threads. */
export function reading(
  { cacheDir, onProgress, signal }: Places,
  threads: number | "auto",
): Pick<ReadOptions, "cacheFolder" | "threads" | "onProgress" | "signal"> {
  return {
    cacheFolder: join(cacheDir, "tokens"),
    threads: threads === "auto" ? availableParallelism() : threads,
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
  };
}
