// A model by folder or by name: its folder or file on this machine, brought from the hub where it must be.

import { join, posix } from "node:path";
import { didYouMean, UserError } from "../core/errors.ts";
import { statIfPresent } from "../files/atomic.ts";
import { partsOf } from "../files/gguf.ts";
import { adapterFiles, modelFiles } from "../files/names.ts";
import { runsIn } from "../files/run-folder.ts";
import { noWeights, readIndex } from "../files/safetensors.ts";
import { cachedSnapshots, fetchSnapshot, type Snapshot } from "./cache.ts";
import { downloadFiles } from "./download.ts";
import type { HubContext, HubSettings } from "./environment.ts";
import { isName, nameOf, parseModelName } from "./repo-id.ts";
import { offlineFailure } from "./request.ts";

export type ResolveOptions = Pick<HubContext, "onProgress" | "onNote" | "signal">;

// Without these no run can start, unless the repository is known not to have one.
const CONFIG = "config.json";
const TOKENIZER = ["tokenizer_config.json", "tokenizer.json"];
const ESSENTIAL = [CONFIG, ...TOKENIZER];
/** A tokenizer of the time before tokenizer.json. */
const OLD_TOKENIZER = ["vocab.json", "merges.txt"];
// The last two are for the card and the licence of what is made of it.
const USEFUL =
  `generation_config.json special_tokens_map.json added_tokens.json tokenizer.model chat_template.jinja
  chat_template.json ssa_config.json README.md LICENSE`.split(/\s+/);
const { weights: WEIGHTS, index: INDEX } = modelFiles;

/**
 * The folder of a model, or its GGUF file. An existing folder wins; `hf:name` always means the hub, `./name` never.
 * What is cached in full is used without a request; else the files that are needed are fetched, pickles never. A folder
 * in the cache has the commit for a name, and links for files.
 */
export async function resolveModel(
  nameOrPath: string,
  settings: HubSettings,
  options: ResolveOptions = {},
): Promise<string> {
  if (!nameOrPath.startsWith("hf:") && (await isFolder(nameOrPath))) return nameOrPath;
  const repo = parseModelName(nameOrPath);
  const { file } = repo;
  let missing: string | undefined;
  for await (const snapshot of cachedSnapshots(settings, repo)) {
    const lost = await missingFrom(snapshot, file);
    if (lost === undefined) return join(snapshot.folder, file ?? "");
    missing ??= lost;
  }
  const [, folder] = /^(?!hf:)([^/]+)\//.exec(nameOrPath) ?? [];
  const runs = folder ? await runsIn(folder).catch(() => []) : [];
  if (runs.length > 0)
    throw new UserError(`there is no ${nameOrPath} among the runs in the folder ${folder}`, {
      hint: `ssa runs ${folder} lists them; hf:${nameOrPath} is a name on the hub`,
    });
  if (settings.offline) throw offlineFailure(repo, missing ?? file ?? CONFIG, settings.cacheDir);
  const context = { settings, repo, ...options };
  const snapshot = await fetchSnapshot(context);
  const files = await snapshot.files();
  const isSharded = !files.includes(WEIGHTS) && files.includes(INDEX);
  if (!file && !isSharded && !files.includes(WEIGHTS)) throw noWeights(nameOf(repo), files);
  if (!file && !files.includes(CONFIG))
    throw new UserError(`${nameOf(repo)} has no config.json, so it is not a transformers model`, {
      hint: "look for the original that it was converted from",
    });
  const useful = file
    ? TOKENIZER.map((name) => posix.join(posix.dirname(file), name))
    : [...ESSENTIAL, ...OLD_TOKENIZER, ...USEFUL, ...(isSharded ? [INDEX] : [])];
  // The weights last: a snapshot that has them has the rest, so an interrupted one is never taken for whole.
  const small = useful.filter((name) => files.includes(name));
  await downloadFiles(context, snapshot, small);
  const weights = await weightsOf(snapshot, file, isSharded);
  const lost = weights.find((name) => !files.includes(name));
  if (lost !== undefined && file)
    throw new UserError(`${nameOf(repo)} has no file "${lost}"`, {
      hint: didYouMean(
        lost,
        files.filter((name) => name.endsWith(".gguf")),
      ),
    });
  if (lost !== undefined)
    throw new UserError(`${nameOf(repo)} names "${lost}" in ${INDEX} but does not have it`);
  await downloadFiles(context, snapshot, weights);
  return join(snapshot.folder, file ?? "");
}

/** Whether the path is a model's folder, false where it can be a name only; throws where it is neither. */
async function isFolder(path: string): Promise<boolean> {
  const fail = (problem: string, hint = "name the folder that holds config.json"): never => {
    throw new UserError(problem, { hint });
  };
  const info = await statIfPresent(path);
  if (!info && /^(\.{0,2}[\\/]|~|[a-zA-Z]:[\\/])|\/$/.test(path))
    return fail(`there is no folder "${path}"`, "check the path");
  if (!info) return false;
  if (!info.isDirectory()) return fail(`"${path}" is a file, expected the folder of a model`);
  // A folder with an adapter and no config.json is opened through the base that it names.
  const adapters = Object.values(adapterFiles).map(({ weights }) => weights);
  for (const file of [modelFiles.config, ...adapters])
    if (await statIfPresent(join(path, file))) return true;
  const both = `a folder that exists wins over a name: for the model on the hub write hf:${path}`;
  const hint = isName(path) ? both : undefined;
  return fail(`the folder "${path}" has no config.json, so it is not a model`, hint);
}

/** The first file that a cached snapshot lacks of those that a model, or its `file`, needs. */
async function missingFrom(snapshot: Snapshot, file?: string): Promise<string | undefined> {
  const tokenizer = snapshot.expects("tokenizer.json") ? [] : OLD_TOKENIZER;
  const small = file ? [] : [...ESSENTIAL, ...tokenizer].filter(snapshot.expects);
  const isSharded = !(await snapshot.has(WEIGHTS)) && (await snapshot.has(INDEX));
  for (const name of [...small, ...(await weightsOf(snapshot, file, isSharded))])
    if (!(await snapshot.has(name))) return name;
  return undefined;
}

/** The files of a model's weights: all parts of `file`, or what its index names, which refuses those outside its folder. */
async function weightsOf(snapshot: Snapshot, file: string | undefined, isSharded: boolean) {
  if (file) return partsOf(file);
  if (!isSharded) return [WEIGHTS];
  return [...new Set((await readIndex(snapshot.pathOf(INDEX))).values())].toSorted();
}
