// A model folder and texts that a page was given: files by name, read where they are.

import { decodeFloats, type Dtype } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { parseObject } from "../core/json.ts";
import type { Corpus } from "../data/corpus.ts";
import { createTokens, type Piece } from "../data/document.ts";
import { partOf, type Side } from "../data/held-out.ts";
import { readTokenizer, type Tokenizer } from "../data/tokenizer/read-tokenizer.ts";
import { adapterFiles, modelFiles } from "../files/names.ts";
import { headerLength, parseHeader, type TensorInfo } from "../files/safetensors-header.ts";
import { matchTensors } from "../model/match.ts";
import type { OpenedModel } from "../model/opened.ts";
import { readModel } from "../models/index.ts";

export type Files = ReadonlyMap<string, Blob>;

const bytesOf = async (blob: Blob) => new Uint8Array(await blob.arrayBuffer());

/** In hexadecimal; undefined where the page's address is neither this machine's nor of HTTPS, and browsers give none. */
async function sha256Of(blob: Blob): Promise<string | undefined> {
  const { subtle } = crypto as { readonly subtle?: SubtleCrypto };
  const digest = await subtle?.digest("SHA-256", await blob.arrayBuffer());
  const hex = (byte: number) => byte.toString(16).padStart(2, "0");
  return digest && Array.from(new Uint8Array(digest), hex).join("");
}

export type PageModel = Awaited<ReturnType<typeof openFolder>>;

/** A plain model with its tokenizer, as `openModel` opens a folder. */
export async function openFolder(name: string, files: Files) {
  const config = files.get(modelFiles.config);
  const weightsFile = files.get(modelFiles.weights);
  if (!config || !weightsFile)
    throw new UserError(`${name} has no ${config ? modelFiles.weights : modelFiles.config}`, {
      hint: "choose a model folder, with config.json, tokenizer.json and the weights in one model.safetensors",
    });
  const path = `${name}/${modelFiles.config}`;
  const configJson = parseObject(await config.text(), path);
  const model = readModel(path, configJson);
  const tokenizer = await readTokenizer({
    folder: name,
    read: async (file) => (files.has(file) ? bytesOf(files.get(file)!) : undefined),
    sha256: async (parts) =>
      (await sha256Of(new Blob(parts.map((part) => new Uint8Array(part))))) ?? "",
    // Nothing can end it here but closing the page.
    within: (_, work) => work(),
  });
  const checkpoint = await openWeights(`${name}/${modelFiles.weights}`, weightsFile);
  const read = ({ offset, byteLength }: TensorInfo) =>
    bytesOf(weightsFile.slice(offset, offset + byteLength));
  const isSame = async (a: TensorInfo, b: TensorInfo) => {
    const [one, other] = [await read(a), await read(b)];
    return one.length === other.length && one.every((byte, i) => byte === other[i]);
  };
  const { weights, temperatures } = await matchTensors(name, model, checkpoint, isSame);
  if (temperatures.size > 0 || files.has(adapterFiles.temperatures.config))
    throw new UserError(`${name} has temperatures already`, { hint: "choose its base" });
  const opened: OpenedModel = { name, folder: name, configJson, model, checkpoint, weights };
  return {
    opened,
    tokenizer,
    base: async () => {
      const sha256 = await sha256Of(weightsFile);
      return { name, ...(sha256 !== undefined && { sha256 }) };
    },
    /** What a graph's weights are ranges of. */
    files: new Map([[modelFiles.weights as string, weightsFile]]),
    readFloats: async (info: TensorInfo) => decodeFloats(info.dtype as Dtype, await read(info))!,
  };
}

async function openWeights(path: string, file: Blob) {
  const length = headerLength(path, await bytesOf(file.slice(0, 8)), file.size);
  const header = await bytesOf(file.slice(8, 8 + length));
  const { tensors, metadata } = parseHeader(path, header, file.size - 8 - length);
  const named = tensors.map((info) => [info.name, { ...info, file: modelFiles.weights }] as const);
  return { files: [modelFiles.weights], tensors: new Map(named), metadata, absent: new Map() };
}

/** What is learnt, and what is held out; each text by itself. */
export type Texts = Readonly<Record<"train" | "heldOut", readonly string[]>>;

/** Text files, of all of which the end is held out. */
export async function readTexts(files: Files, share: number): Promise<Texts> {
  const pieces: Piece[] = [];
  for (const [name, file] of files) {
    try {
      const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
      const text = decoder.decode(await file.arrayBuffer());
      pieces.push({ text, isTarget: true, isLast: true });
    } catch (cause) {
      throw new UserError(`${name} is not UTF-8 text`, { hint: "choose a plain text file", cause });
    }
  }
  const textsOf = async (side: Side["side"]) => {
    const texts: string[] = [];
    for await (const { text } of partOf(() => pieces, { side, share })) texts.push(text);
    return texts.filter(Boolean);
  };
  return { train: await textsOf("kept"), heldOut: await textsOf("held-out") };
}

/** The tokens of texts, with the special tokens that the tokenizer puts around each. */
export function corpusOf(texts: readonly string[], tokenizer: Tokenizer): Corpus {
  const { prefix, suffix, vocabSize } = tokenizer;
  const tokens = texts.map((text) => {
    const { ids } = tokenizer.encode([{ text, isTarget: true, isLast: true }]);
    return createTokens([...prefix, ...ids, ...suffix], vocabSize);
  });
  const numTokens = tokens.reduce((sum, { length }) => sum + length, 0);
  const numTargets = numTokens - prefix.length * texts.length;
  const facts = { utf8Bytes: undefined, numWords: null, dataSha256: "" };
  return { texts: tokens.map((tokens) => ({ tokens })), numTokens, numTargets, ...facts };
}
