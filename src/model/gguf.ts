// A GGUF file as a model folder in the cache: made once, of the file's content and the tokenizer beside it.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { UserError } from "../core/errors.ts";
import { tokenizerOfGguf } from "../data/tokenizer/gguf-tokenizer.ts";
import { makeFolder, readIfPresent, replaceFolder, statIfPresent } from "../files/atomic.ts";
import { keptDtype, keptValues, openGguf } from "../files/gguf.ts";
import { writeJson } from "../files/json.ts";
import { modelFiles } from "../files/names.ts";
import { hashOfFile, readFloats, writeSafetensors } from "../files/safetensors.ts";
import type { TensorSource } from "../files/safetensors.ts";
import { modelOfGguf } from "../models/gguf.ts";
import { readModel } from "../models/index.ts";

/** Whether a name is that of a GGUF file which is there. */
export const isGguf = async (path: string) =>
  /\.gguf$/i.test(path) && (await statIfPresent(path))?.isFile() === true;

/** Another text where the same file would become another folder. */
const FORMAT = "1";

/** The folder of the file's model below `cache`. */
export async function folderOfGguf(path: string, cache: string, onNote?: (note: string) => void) {
  const { metadata, tensors } = await openGguf(path);
  const parts = Number(metadata.get("split.count") ?? 1);
  if (parts > 1)
    throw new UserError(`${path} is one of ${parts} files of a model`, {
      hint: "join them with llama.cpp: llama-gguf-split --merge FIRST OUT",
    });
  const own = [modelFiles.tokenizer, modelFiles.tokenizerConfig];
  const beside = existsSync(join(dirname(path), modelFiles.tokenizer)) ? own : [];
  const hash = createHash("sha256").update(FORMAT);
  for (const name of beside) hash.update((await readIfPresent(join(dirname(path), name))) ?? "");
  const folder = join(cache, await hashOfFile(path, hash));
  if (existsSync(folder)) return folder;

  const divisors = new Map<string, readonly number[]>();
  for (const info of tensors)
    if (info.name.startsWith("rope_")) divisors.set(info.name, [...(await readFloats(info))]);
  const model = modelOfGguf(path, { metadata, tensors, divisors });
  const tokenizer = beside.length > 0 ? undefined : tokenizerOfGguf(path, metadata);
  readModel(path, model.config); // before anything is written
  const sources = tensors
    .filter(({ name }) => !divisors.has(name))
    .map((tensor): TensorSource => {
      const { name, shape, arrange } = model.placeOf(tensor.name, tensor.shape);
      return { name, shape, dtype: keptDtype(tensor), data: () => keptValues(tensor, arrange) };
    });
  onNote?.(`${basename(path)} is read once, into ${folder}`);
  await makeFolder(cache);
  await replaceFolder(folder, async (made) => {
    await writeJson(join(made, modelFiles.config), model.config);
    if (tokenizer) await writeJson(join(made, modelFiles.tokenizer), tokenizer.json);
    if (tokenizer) await writeJson(join(made, modelFiles.tokenizerConfig), tokenizer.config);
    for (const name of beside)
      if (existsSync(join(dirname(path), name)))
        await copyFile(join(dirname(path), name), join(made, name));
    await writeSafetensors(join(made, modelFiles.weights), sources);
  });
  return folder;
}
