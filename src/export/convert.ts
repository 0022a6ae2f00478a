// `ssa convert`: a model, an adapter on its base, or a run becomes a folder that others can use; checked, then named.

import { existsSync } from "node:fs";
import { readdir, readFile, realpath, rm, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { BLOCK_FORMATS, type ExportFormat } from "../core/dtype.ts";
import { didYouMean, UserError } from "../core/errors.ts";
import * as atomic from "../files/atomic.ts";
import { modelFiles } from "../files/names.ts";
import { describeQuantization } from "../model/blocks.ts";
import type { OpenOptions } from "../model/open.ts";
import type { OpenedModel } from "../model/opened.ts";
import { openNamed, type Places } from "../model/places.ts";
import { planBlocks, withBlocks, withBlocksOf, writeBlocks } from "../model/quantize.ts";
import { INSERTION_KINDS } from "../insertions/kinds.ts";
import { CARD_MARK, modelCard } from "./card.ts";
import { checkAdapterSource, checkFolds, folded, isExported } from "./model-folder.ts";
import { writeAdapter, writeModelFolder } from "./model-folder.ts";
import { formatOf, writeOnnx } from "./onnx.ts";
import { type Provenance, provenanceOf } from "./provenance.ts";
import { codeConfig, writeCode } from "./transformers.ts";
import { type Target, TARGETS, verify } from "./verify.ts";

export interface ConvertOptions extends OpenOptions, Partial<Places> {
  /** As `openModel` takes it. */
  readonly model: string;
  readonly target: Target;
  readonly out: string;
  /** Of the base's weights; as stored (safetensors) or fp32 (onnx) by default. Blocks of integers are ONNX's alone. */
  readonly dtype?: ExportFormat | undefined;
  /** Refuses what cannot become part of the weights. */
  readonly mustFold?: boolean;
  /** Replaces an earlier export. */
  readonly isForced?: boolean;
  /** Largest file of weights, bytes; 5 GB (safetensors) or 2 GB (onnx) by default. */
  readonly maxFileBytes?: number | undefined;
  /** Told what begins. */
  readonly onStage?: (stage: string) => void;
}

export type Conversion = Awaited<ReturnType<typeof convert>>;

/** Writes `out` and compares it with its source; on any failure `out` is as it was before. */
export async function convert(options: ConvertOptions) {
  const { target, dtype, quantization = null, onStage } = options;
  checkFormat(target, dtype);
  if (target === "adapter" && options.mustFold)
    throw new UserError("an adapter is what is not part of the weights", {
      hint: "--fold goes with another target: safetensors is a folder that needs no code",
    });
  onStage?.("reading the source");
  const named = await openNamed(options.model, options);
  const provenance = await provenanceOf(named);
  const computed = target === "adapter" ? named : await withBlocks(named, quantization, options);
  // An export has the blocks of its source multiplied out, unless it has blocks itself.
  const { quantized, ...plain } = computed;
  const { bits, precision } = formatOf(dtype);
  const blocksNow = quantized && describeQuantization(quantized.spec);
  if (blocksNow && bits && bits !== quantized.spec.bits)
    throw new UserError(`${options.model} has blocks of other bits already: ${blocksNow}`, {
      hint: `take --dtype ${bits === 4 ? "q8" : "q4f16"}, which keeps its blocks, or f16, which has them multiplied out`,
    });
  const opened = { ...plain, weights: quantized?.weights ?? plain.weights };
  if (target === "adapter") checkAdapterSource(opened, provenance);
  if (options.mustFold) checkFolds(opened);
  const out = resolve(options.out);
  await prepareOut(out, opened, options.isForced);
  return atomic.replaceFolder(out, async (folder) => {
    onStage?.("writing");
    const foldedPath = join(folder, "folded.safetensors");
    const made = target === "adapter" ? opened : await folded(opened, foldedPath);
    const isFolded = made !== opened;
    // What did not stay as it was, whole or in part.
    const kinds = INSERTION_KINDS.filter((kind) => made[kind] !== opened[kind]);
    const origin = isFolded ? { ...provenance, hasTrainedBase: true, folded: kinds } : provenance;
    const blocks = join(folder, "blocks");
    const kept = quantized && !isFolded && { ...made, quantized };
    const written = bits ? kept || (await inBlocks(made, bits, blocks)) : made;
    const readBack = (await writers[target](folder, written, origin, options)) || undefined;
    onStage?.("checking what was written");
    const verification = await verify(target, folder, written, precision === "fp16", readBack);
    for (const path of [foldedPath, blocks]) await rm(path, { recursive: true, force: true });
    const card = await modelCard(written, origin, folder, basename(out), target, verification);
    await atomic.writeFileAtomic(join(folder, modelFiles.card), card);
    const files = await listFiles(folder);
    const folding = { temperatures: "constant temperatures", lora: "LoRA" };
    const format = dtype ?? (target === "onnx" ? "fp32" : "the number format of their factors");
    const multiplied = `are multiplied out, in ${format}`;
    const staying = `stay what they are${kept ? "" : ", where nothing became part of them"}`;
    const notes: string[] = [];
    if (target !== "adapter" && blocksNow)
      notes.push(`its blocks (${blocksNow}) ${bits ? staying : multiplied}`);
    notes.push(...kinds.map((kind) => `${folding[kind]} became part of the weights`));
    if (readBack && verification.what !== "logits")
      notes.push(
        "this machine has too little free memory to run it: its files were read back instead",
      );
    if (bits && !kept)
      notes.push(
        `${blocksNow ? "these" : "matrices"} became blocks: ${describeQuantization(asBlocks(bits))}; what that costs: ssa eval --quantize q${bits}`,
      );
    if (target !== "adapter" && !files.some(({ name }) => name === modelFiles.tokenizer))
      notes.push("the source has no tokenizer.json: its users will have to bring one");
    if (target === "transformers" && !made.temperatures)
      notes.push("nothing is left that needs code: transformers runs this folder as any other");
    return { out, target, files, verification, /** For its users. */ notes };
  });
}

function checkFormat(target: Target, dtype: ExportFormat | undefined) {
  const isBlocks = BLOCK_FORMATS.some((name) => name === dtype);
  const lacks = `${target} with ${dtype} weights:`;
  const problems = [
    [target === "adapter" && dtype, "an adapter's tensors are always f32", "leave --dtype out"],
    [
      target === "onnx" && dtype === "bf16",
      `${lacks} the clients' providers do not compute with bf16`,
      "take --dtype f16, q4f16 or f32",
    ],
    [
      target !== "onnx" && isBlocks,
      `${lacks} blocks of integers are written into onnx alone`,
      "take --dtype f16, or --to onnx; to quantise a base for a run: ssa finetune --quantize",
    ],
  ] as const;
  for (const [isSo, problem, hint] of problems) if (isSo) throw new UserError(problem, { hint });
}

/** transformers.js's own. */
const asBlocks = (bits: 4 | 8) => ({ bits, block: 32, head: false });

/** The model with its matrices in blocks, those that are none yet in blocks of `bits`, all of which `folder` holds. */
async function inBlocks(opened: OpenedModel, bits: 4 | 8, folder: string) {
  const planned = planBlocks(opened, asBlocks(bits));
  await atomic.makeFolder(folder);
  await writeBlocks(folder, planned);
  return withBlocksOf(folder, planned);
}

/** A target by name; what cannot be one is refused with the reason. */
export function targetNamed(name: string): Target {
  const target = TARGETS.find((known) => known === name);
  if (target) return target;
  const known = `known: ${TARGETS.join(", ")}`;
  if (/^(gguf|ggml|llama\.?cpp|ollama)$/i.test(name))
    throw new UserError(
      `${name} cannot hold this model: no runtime of that format can represent a temperature that depends on the token`,
      { hint: `without it the base model would run and say nothing; ${known}` },
    );
  const hint = `${didYouMean(name, TARGETS) ?? ""} ${known}`.trim();
  throw new UserError(`target "${name}" is not known`, { hint });
}

type Source = readonly [opened: OpenedModel, provenance: Provenance, options: ConvertOptions];
/** May give what reads the files again. */
type Write = (folder: string, ...of: Source) => Promise<void | (() => Promise<boolean>)>;

const writers: Readonly<Record<Target, Write>> = {
  safetensors: writeModelFolder,
  transformers: async (folder, opened, provenance, options) => {
    const code = opened.temperatures ? codeConfig(opened) : {};
    await writeModelFolder(folder, opened, provenance, options, code);
    if (opened.temperatures) await writeCode(folder);
  },
  adapter: (folder, opened, { base }) => writeAdapter(folder, opened, base),
  onnx: (folder, opened, _, options) => writeOnnx(folder, opened, options),
};

/**
 * Refuses (exit 2) an output that exists, unless it is empty, or an earlier export and `isForced`, and what holds the
 * source.
 */
async function prepareOut(
  out: string,
  { folder: base, adapter, run }: OpenedModel,
  isForced = false,
) {
  await atomic.settleReplacement(out);
  if (existsSync(out)) {
    const refuse = (problem: string, or = ""): never => {
      throw new UserError(`${out} ${problem}`, { hint: `choose another --out${or}` });
    };
    const real = await realpath(out);
    for (const source of [base, adapter ?? [], run ?? []].flat()) {
      const path = relative(real, await realpath(source));
      if (path === "" || (path !== ".." && !path.startsWith(`..${sep}`) && path !== resolve(path)))
        refuse("holds the model that is to be converted");
    }
    if (!(await stat(out)).isDirectory()) refuse("is a file, a folder is to be written");
    const isEmpty = (await readdir(out)).length === 0;
    if (!isEmpty && !isForced)
      refuse("exists already", ", or replace an earlier export with --force");
    const card = await readFile(join(out, modelFiles.card), "utf8").catch(() => "");
    const stays = "was not written by `ssa convert`, so --force does not remove it";
    if (!isEmpty && !card.includes(CARD_MARK)) refuse(stays, ", or remove the folder yourself");
    const foreign = (await readdir(out)).find((name) => !isExported(name));
    if (foreign !== undefined)
      refuse(`also holds ${foreign}, which \`ssa convert\` did not write`, ", or move that away");
  }
  await atomic.makeFolder(dirname(out)).catch((error: unknown) => {
    throw atomic.writeFailure(out, error);
  });
}

async function listFiles(folder: string) {
  const sized = async (path: string) => {
    return { name: relative(folder, path), sizeBytes: (await stat(path)).size };
  };
  return Promise.all((await atomic.filesBelow(folder)).map(sized));
}
