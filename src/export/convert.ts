// `ssa convert`: a model, an adapter on its base, or a run becomes a folder that others can use; checked, then named.

import { readdir, rm, stat } from "node:fs/promises";
import { basename, join, relative, resolve } from "node:path";
import { nearest, UserError } from "../core/errors.ts";
import { openEngine } from "../engines/index.ts";
import { writeFileAtomic } from "../files/atomic.ts";
import { checkAdapterSource, writeAdapter } from "./adapter.ts";
import { modelCard } from "./card.ts";
import { writeCompanions } from "./companions.ts";
import { folded } from "./fold.ts";
import { writeOnnx } from "./onnx.ts";
import { writeModelFolder } from "./model-folder.ts";
import { openSource, type Source, type SourceOptions } from "./source.ts";
import { stageFolder } from "./staging.ts";
import { type Verification, verifyAdapter, verifyOnnx, verifyWeights } from "./verify.ts";
import type { ExportDtype } from "./weights.ts";

export const TARGETS = ["safetensors", "adapter", "onnx"] as const;
export type Target = (typeof TARGETS)[number];

export interface ConvertOptions extends SourceOptions {
  /** A model folder, an adapter's folder or a run's. */
  readonly model: string;
  readonly target: Target;
  readonly out: string;
  /** Of the base's weights; as stored (safetensors) or f32 (onnx) by default. */
  readonly dtype?: ExportDtype;
  /** Replaces an earlier export. */
  readonly isForced?: boolean;
  /** Largest file of weights, bytes; 5 GB (safetensors) or 2 GB (onnx) by default. */
  readonly maxFileBytes?: number;
  /** Told what begins. */
  readonly onStage?: (stage: string) => void;
}

export interface Conversion {
  readonly out: string;
  readonly target: Target;
  readonly files: readonly { readonly name: string; readonly sizeBytes: number }[];
  readonly verification: Verification;
  /** What its users should know. */
  readonly notes: readonly string[];
}

/** Writes `out` and compares it with its source; on any failure `out` is as it was before. */
export async function convert(options: ConvertOptions): Promise<Conversion> {
  const { target, dtype, onStage } = options;
  if (target === "onnx" && dtype === "bf16")
    throw new UserError(
      "onnx with bf16 weights is refused: the clients' providers do not compute with bf16",
      { hint: "take --dtype f16 or f32" },
    );
  if (target === "adapter" && dtype !== undefined)
    throw new UserError("an adapter's temperatures are always f32", { hint: "leave --dtype out" });
  onStage?.("reading the source");
  const source = await openSource(options.model, options);
  if (target === "adapter") checkAdapterSource(source);
  const staging = { isForced: options.isForced ?? false, sources: source.folders };
  return stageFolder(options.out, staging, async (folder) => {
    onStage?.("writing");
    const foldedPath = join(folder, "folded.safetensors");
    const made = target === "adapter" ? source : await folded(source, foldedPath);
    const write = { safetensors: writeSafetensors, adapter: writeTemperatures, onnx: writeGraph };
    const check = await write[target](folder, made, options);
    onStage?.("checking what was written");
    const verification = await check();
    await rm(foldedPath, { force: true });
    const title = basename(resolve(options.out));
    const card = await modelCard(made, { folder, target, title, verification });
    await writeFileAtomic(join(folder, "README.md"), card);
    const files = await listFiles(folder);
    const notes: string[] = [];
    if (made.isFolded) notes.push("constant temperatures became part of the weights");
    if (target !== "adapter" && !files.some(({ name }) => name === "tokenizer.json"))
      notes.push("the source has no tokenizer.json: its users will have to bring one");
    return { out: resolve(options.out), target, files, verification, notes };
  });
}

/** A target by name; what cannot be one is refused with the reason. */
export function targetNamed(name: string): Target {
  if ((TARGETS as readonly string[]).includes(name)) return name as Target;
  const known = `known: ${TARGETS.join(", ")}`;
  if (/^(gguf|ggml|llama\.?cpp|ollama)$/i.test(name))
    throw new UserError(
      `${name} cannot hold this model: no runtime of that format can represent a temperature that depends on the token`,
      { hint: `without it the base model would run and say nothing; ${known}` },
    );
  const guess = nearest(name, TARGETS);
  throw new UserError(`target "${name}" is not known`, {
    hint: guess ? `did you mean ${guess}? ${known}` : known,
  });
}

/** Writes the target's files and gives the comparison to be made with them. */
type Write = (
  folder: string,
  source: Source,
  options: ConvertOptions,
) => Promise<() => Promise<Verification>>;

const writeSafetensors: Write = async (folder, source, { dtype, maxFileBytes }) => {
  await writeModelFolder(folder, source, {
    ...(dtype && { dtype }),
    ...(maxFileBytes && { maxShardBytes: maxFileBytes }),
  });
  return () => verifyWeights(folder, source.opened);
};

const writeTemperatures: Write = async (folder, source) => {
  await writeAdapter(folder, source);
  return () => verifyAdapter(folder, source.opened);
};

const writeGraph: Write = async (folder, { opened }, { dtype, maxFileBytes }) => {
  const settings = await writeOnnx(folder, opened, {
    dtype: dtype === "f16" ? "f16" : "f32",
    ...(maxFileBytes && { maxFileBytes }),
  });
  const config = { ...opened.configJson, "transformers.js_config": settings };
  await writeCompanions(opened.folder, folder, config);
  return async () => {
    const engine = await openEngine("cpu", { threads: 0 });
    try {
      return await verifyOnnx(folder, opened, engine, dtype === "f16");
    } finally {
      await engine.dispose();
    }
  };
};

async function listFiles(folder: string): Promise<Conversion["files"]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
    .sort()
    .map(async (path) => ({ name: relative(folder, path), sizeBytes: (await stat(path)).size }));
  return Promise.all(files);
}
