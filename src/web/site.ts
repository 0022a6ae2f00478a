// The page that fine-tunes as the files of a web site: the page, a model and texts that it offers, and the runtime.

import { existsSync } from "node:fs";
import { copyFile, readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { UserError } from "../core/errors.ts";
import { readDocuments } from "../data/corpus.ts";
import type { DataSplit } from "../data/readers/files.ts";
import { TOKENIZER_FILES } from "../data/tokenizer/read-tokenizer.ts";
import { webDevices } from "../engines/onnxruntime/web.ts";
import { makeFolder, replaceFolder, writeFileAtomic } from "../files/atomic.ts";
import { modelFiles } from "../files/names.ts";
import { installedFolder } from "../files/package-root.ts";
import { insertionsOf } from "../insertions/kinds.ts";
import { openModel } from "../model/open.ts";
import { opening, type Places } from "../model/places.ts";
import { type Recipe, sourcesOf } from "../options/schema.ts";
import { documentOf } from "../report/document.ts";
import { splitsOf } from "../run/prepare.ts";
import type { Served } from "../report/loopback.ts";
import type { Texts } from "./folder.ts";

/** What the page is told of what lies beside it. */
export interface Offer {
  readonly recipe: Recipe;
  readonly dataName: string;
  /** Files of the model's folder, in `model/`. */
  readonly modelFiles: readonly string[];
}

export type Site = ReadonlyMap<string, Served>;

/** As many characters as a page holds at ease. */
const MOST_CHARACTERS = 100e6;

/** A site that offers a recipe's base and data; "" is the page. */
export async function siteOf(recipe: Recipe, places: Places): Promise<Site> {
  if (recipe.tune.join() !== "temperatures" || recipe.init !== "pretrained")
    throw new UserError("the page trains temperatures alone, of a pretrained model", {
      hint: "leave out tune and init, or train with ssa finetune",
    });
  const { folder, checkpoint, ...opened } = await openModel(recipe.base, opening(places));
  if (checkpoint.files.length !== 1 || basename(checkpoint.files[0]!) !== modelFiles.weights)
    throw new UserError(`${recipe.base}: its weights are not in one ${modelFiles.weights}`, {
      hint: "the page reads that file alone: offer a smaller model",
    });
  if (opened.quantized)
    throw new UserError(`${recipe.base} is quantised, which the page does not read`, {
      hint: "offer the model that it was quantised from",
    });
  if (insertionsOf(opened).length > 0)
    throw new UserError(`${recipe.base} has temperatures or LoRA already`, {
      hint: "offer its base",
    });
  const named = [modelFiles.config, modelFiles.weights, ...TOKENIZER_FILES];
  const names = named.filter((name) => existsSync(join(folder, name)));
  const [source, ...others] = sourcesOf(recipe);
  if (others.length > 0) throw new UserError("the page offers one source of data");
  // Of a place on this machine the page knows the last part alone.
  const dataName = basename(source!.path);
  const own = { ...recipe, data: dataName, evalData: null, out: null };
  const offer: Offer = { recipe: own, dataName, modelFiles: names };
  const self = "'self'";
  const page = await documentOf({
    title: "ssa: fine-tune in this browser",
    entry: join(import.meta.dirname, "page/main"),
    data: offer,
    allows: { "script-src": "'self' 'wasm-unsafe-eval'", "worker-src": self, "connect-src": self },
  });
  const runtime = installedFolder("onnxruntime-web", "with which the page computes");
  const files = Object.values(webDevices).flatMap((device) => device.files);
  const texts = JSON.stringify(await textsOf(recipe, places));
  const typeOf = (name: string) =>
    Object.entries(TYPES).find(([end]) => name.endsWith(end))?.[1] ?? "application/octet-stream";
  const file = (at: string, from: string) => (name: string) =>
    [`${at}/${name}`, { type: typeOf(name), path: join(from, name) }] as const;
  return new Map<string, Served>([
    ["", { type: "text/html", text: page }],
    ["texts.json", { type: "application/json", text: texts }],
    ...names.map(file("model", folder)),
    ...files.map(file("runtime", runtime)),
  ]);
}

const TYPES = {
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** The texts that `ssa finetune` would learn and hold out. */
async function textsOf(recipe: Recipe, places: Places): Promise<Texts> {
  const read = async (of: DataSplit) => {
    const texts: string[] = [];
    let [text, count] = ["", 0];
    for await (const piece of readDocuments(of, recipe)) {
      if (!piece.isTarget || piece.isRendered)
        throw new UserError(
          `${of.description} has prompts or chats; the page learns all of a text`,
        );
      text += piece.text;
      count += piece.text.length;
      if (count > MOST_CHARACTERS)
        throw new UserError(`${of.description} is too much for a page`, {
          hint: "offer less text",
        });
      if (!piece.isLast) continue;
      texts.push(text);
      text = "";
    }
    return texts.filter(Boolean);
  };
  const { learnt, heldOut } = await splitsOf(recipe, places);
  return { train: await read(learnt[0]!), heldOut: await read(heldOut[0]!) };
}

/** Writes the site into a folder, from which any web server serves it. */
export async function exportSite(site: Site, folder: string): Promise<void> {
  if (existsSync(folder) && (await readdir(folder)).length > 0)
    throw new UserError(`${folder} is not empty`, { hint: "name a new folder" });
  await replaceFolder(folder, async (into) => {
    for (const [name, served] of site) {
      const path = join(into, name || "index.html");
      await makeFolder(dirname(path));
      if ("text" in served) await writeFileAtomic(path, served.text);
      else await copyFile(served.path, path);
    }
  });
}
