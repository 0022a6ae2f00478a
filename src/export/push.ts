// A model or an adapter handed on: which files of a folder go to the hub, with a card where it has none, and which never do.

import { existsSync, lstatSync } from "node:fs";
import { basename, isAbsolute, join, relative } from "node:path";
import type { Dtype } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { filesBelow } from "../files/atomic.ts";
import { readJson } from "../files/json.ts";
import { adapterFiles, modelFiles, runFiles, snapshotFiles } from "../files/names.ts";
import { isRun } from "../files/run-folder.ts";
import { openSafetensors, type TensorSource } from "../files/safetensors.ts";
import { headerBytes } from "../files/safetensors-header.ts";
import { pushFiles, type Upload } from "../hub/push.ts";
import { isName, parseModelName } from "../hub/repo-id.ts";
import { INSERTION_KINDS, kindOf } from "../insertions/kinds.ts";
import { openModel } from "../model/open.ts";
import type { OpenedModel } from "../model/opened.ts";
import { opening, type Places } from "../model/places.ts";
import { hubId, modelCard } from "./card.ts";
import { provenanceKeys, provenanceOf } from "./provenance.ts";

export interface PushOptions {
  /** `owner/name`. */
  readonly repo: string;
  /** A branch, which is made where it is missing. */
  readonly revision?: string;
  readonly message?: string | undefined;
  /** Of a repository that is new. */
  readonly isPrivate?: boolean;
  readonly isDryRun?: boolean;
}

/** Sends the final model of a run, or the folder of a model, an adapter or an export. */
export async function push(name: string, places: Places, options: PushOptions) {
  const { repo: id, revision = "main", message, ...how } = options;
  const repo = isName(id) && id.includes("/") && parseModelName(`${id}@${revision}`);
  if (!repo)
    throw new UserError(`"${id}" cannot be a repository of the hub`, {
      hint: "expected owner/name, of letters, digits, - _ and .",
    });
  const folder = isRun(name) ? join(name, runFiles.final) : name;
  const unfinished = folder !== name && `the run ${name} is not finished: no final`;
  if (!existsSync(folder))
    throw new UserError(unfinished || `there is no folder "${name}"`, {
      hint: `name a run or the folder of a model; ssa finetune --resume --out DIR finishes a run`,
    });
  const uploads = await filesOf(folder);
  const has = (file: string) => uploads.some((upload) => upload.name === file);
  const isOnnx = uploads.some((upload) => /(^|\/)[^/]+\.onnx$/.test(upload.name));
  // Refuses what is no model, lacks a part of one, or is cut off.
  if (!isOnnx || !has(modelFiles.config)) {
    const opened = await openModel(folder, opening(places));
    const target = has(modelFiles.config) ? "safetensors" : "adapter";
    const title = id.slice(id.indexOf("/") + 1);
    const recorded = opened.checkpoint.metadata[provenanceKeys.name];
    const base = target === "adapter" ? opened.name : recorded;
    const name = base && isAbsolute(base) ? publicName(base, opened) : undefined;
    if (name) {
      for (const [i, file] of uploads.entries()) uploads[i] = await withBase(file, name);
      places.onNote?.(`what is pushed names its base ${name}, not ${base}`);
    }
    const card = async () => {
      const known = await provenanceOf(opened);
      const base = { ...known.base, ...(name && { name }) };
      return modelCard(opened, { ...known, base }, folder, title, target);
    };
    if (!has(modelFiles.card)) uploads.push({ name: modelFiles.card, text: await card() });
  }
  const { hub: settings, onProgress, signal } = places;
  const offlineWay = "list what there is to push: --dry-run with HF_HUB_OFFLINE=1";
  const pushed = pushFiles({ settings, repo, onProgress, signal, offlineWay }, uploads, {
    message: message ?? "Upload with ssa",
    ...how,
  });
  return pushed.finally(() => onProgress?.(undefined));
}

/** What others may know a folder of this machine as: what its config says of itself, or its last part. */
const publicName = (path: string, { configJson }: OpenedModel) =>
  hubId(String(configJson["_name_or_path"]), parseModelName) ?? basename(path);

/** An adapter's config, or weights whose metadata name one, with another name of the base; any other file as it is. */
async function withBase(upload: Upload, base: string): Promise<Upload> {
  if ("path" in upload && upload.name.endsWith(".safetensors")) {
    const { tensors, metadata } = await openSafetensors(upload.path);
    const [first] = tensors.values();
    if (!first || !(provenanceKeys.name in metadata)) return upload;
    // As our own writer has left it, so that the values stay where they are.
    const written = [...tensors.values()].map(({ name, dtype, shape }): TensorSource => {
      return { name, dtype: dtype as Dtype, shape, data: new Uint8Array() };
    });
    const bytes = headerBytes(written, { ...metadata, [provenanceKeys.name]: base });
    return { ...upload, head: { bytes, inPlaceOf: first.offset } };
  }
  const kind = INSERTION_KINDS.find((each) => adapterFiles[each].config === upload.name);
  if (!kind || !("path" in upload)) return upload;
  const json = { ...(await readJson(upload.path)), [kindOf(kind).baseKeys.name]: base };
  return { name: upload.name, text: `${JSON.stringify(json, null, 2)}\n` };
}

/** What nobody means to publish: checkpoints and figures of a run, the tokens of a text, and what a program was writing. */
const STRAY = new RegExp(
  `(^|/)(step-\\d{6,}/|(${[snapshotFiles.state, snapshotFiles.optimizer, runFiles.metrics].join("|")})$)` +
    String.raw`|\.(tokens|part|incomplete|lock)$|\.tmp-\d+-[0-9a-f]{8,16}(/|$)`,
);

/** All that goes along; hidden files stay here. */
async function filesOf(folder: string): Promise<Upload[]> {
  const files = (await filesBelow(folder)).map((path) => {
    return { path, name: relative(folder, path).replaceAll("\\", "/") };
  });
  const visible = files.filter(({ name }) => !/(^|\/)\./.test(name));
  const stray = visible.find(({ path, name }) => STRAY.test(name) || !lstatSync(path).isFile());
  if (!stray) return visible;
  const what = STRAY.test(stray.name)
    ? "of a run, a cache or a killed program"
    : "a link or no file";
  throw new UserError(`${stray.path} is ${what}, which is not pushed`, {
    hint: "take it out of the folder, or export what you mean: ssa convert",
  });
}
