// `ssa convert`: a model, an adapter on its base, or a run becomes a folder that others can use; checked, then named.

import { readdir, rm, stat } from "node:fs/promises";
import { basename, join, relative, resolve } from "node:path";
import type { Precision } from "../core/dtype.ts";
import { nearest, UserError } from "../core/errors.ts";
import { writeFileAtomic } from "../files/atomic.ts";
import { modelFiles } from "../files/names.ts";
import { type OpenedModel, openModel, type OpenOptions } from "../model/open.ts";
import { checkAdapterSource, writeAdapter } from "./adapter.ts";
import { modelCard } from "./card.ts";
import { folded } from "./fold.ts";
import { writeCompanions, writeModelFolder } from "./model-folder.ts";
import { writeOnnx } from "./onnx.ts";
import { type Provenance, provenanceOf } from "./provenance.ts";
import { stageFolder } from "./staging.ts";
import { type Target, TARGETS, type Verification, verify } from "./verify.ts";

export { type Target, TARGETS } from "./verify.ts";

export interface ConvertOptions extends OpenOptions {
  /** As `openModel` takes it. */
  readonly model: string;
  readonly target: Target;
  readonly out: string;
  /** Of the base's weights; as stored (safetensors) or fp32 (onnx) by default. */
  readonly dtype?: Precision | undefined;
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
  const opened = await openModel(options.model, options);
  const provenance = await provenanceOf(opened);
  if (target === "adapter") checkAdapterSource(opened, provenance);
  const { folder: base, adapter, run } = opened;
  const sources = [base, adapter, run].filter((folder) => folder !== undefined);
  return stageFolder(
    options.out,
    { isForced: options.isForced ?? false, sources },
    async (folder) => {
      onStage?.("writing");
      const foldedPath = join(folder, "folded.safetensors");
      const made = target === "adapter" ? opened : await folded(opened, foldedPath);
      const isFolded = made !== opened;
      const origin = isFolded ? { ...provenance, hasTrainedBase: true, isFolded } : provenance;
      await writers[target](folder, made, origin, options);
      onStage?.("checking what was written");
      const verification = await verify(target, folder, made, dtype === "fp16");
      await rm(foldedPath, { force: true });
      const title = basename(resolve(options.out));
      const card = await modelCard(made, origin, { folder, target, title, verification });
      await writeFileAtomic(join(folder, modelFiles.card), card);
      const files = await listFiles(folder);
      const notes = isFolded ? ["constant temperatures became part of the weights"] : [];
      if (target !== "adapter" && !files.some(({ name }) => name === modelFiles.tokenizer))
        notes.push("the source has no tokenizer.json: its users will have to bring one");
      return { out: resolve(options.out), target, files, verification, notes };
    },
  );
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

type Write = (
  folder: string,
  opened: OpenedModel,
  provenance: Provenance,
  options: ConvertOptions,
) => Promise<void>;

const writers: Record<Target, Write> = {
  safetensors: (folder, opened, provenance, { dtype, maxFileBytes }) =>
    writeModelFolder(folder, opened, provenance, { dtype, maxShardBytes: maxFileBytes }),
  adapter: (folder, opened, { base }) => writeAdapter(folder, opened, base),
  onnx: async (folder, opened, _, { dtype, maxFileBytes }) => {
    const precision = dtype === "fp16" ? dtype : "fp32";
    const settings = await writeOnnx(folder, opened, { precision, maxFileBytes });
    const config = { ...opened.configJson, "transformers.js_config": settings };
    await writeCompanions(opened.folder, folder, config);
  },
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
