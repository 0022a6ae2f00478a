// Other programs' quantised safetensors as blocks, value for value: GPTQ's and AWQ's with zero points, MLX's with biases.
// Layouts: AutoGPTQ's QuantLinear, AutoAWQ's WQLinear_GEMM, mlx.core.quantize of the mode "affine".

import { encodeFloats } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { isRecord, type JsonObject, shown } from "../core/json.ts";
import { sizeOf } from "../core/shape.ts";
import { type Checkpoint, readBytes, readFloats, type TensorInfo } from "../files/safetensors.ts";
import type { Model } from "../models/index.ts";
import type { BlockedTensor, Method } from "./blocks.ts";
import { blocked, isBlocked, keptBits, methods, packed, shiftBytes, unpacked } from "./blocks.ts";

/** Of integers in 32-bit words, the first in the lowest bits: `perWord` of them; N outputs, K inputs, G groups of these. */
interface Layout {
  readonly bits: readonly (4 | 8)[];
  /** The key that says in which form they are, and its values that are read, the usual one first. */
  readonly form: readonly [key: string, ...values: string[]];
  readonly codes: string;
  /** Zero points are words along the outputs, and factors [G, N] with them; with biases they are [N, G], as these. */
  readonly shift: "qzeros" | "biases";
  /** N and K by the shape of the words. */
  readonly sides: (a: number, b: number, perWord: number) => readonly [N: number, K: number];
  /** Bytes of the words as codes [N, K]. */
  readonly codesOf: (bytes: Uint8Array, bits: 4 | 8, N: number) => Int8Array;
  readonly zerosOf?: (bytes: Uint8Array, bits: 4 | 8) => Int8Array;
}

/** Integers in their order, less half their range. */
function signed(bytes: Uint8Array, bits: 4 | 8): Int8Array {
  const half = bits === 4 ? 0x88 : 0x80;
  return unpacked(
    bytes.map((byte) => byte ^ half),
    bits,
  );
}

/** AWQ's words hold each 8 neighbours in the order 0, 2, 4, 6, 1, 3, 5, 7. */
function inOrder(bytes: Uint8Array): Int8Array {
  const integers = signed(bytes, 4);
  return integers.map((_, i) => integers[i - (i % 8) + (i % 2) * 4 + ((i % 8) >> 1)]!);
}

function transposed<Values extends Int8Array | Uint32Array | Float32Array>(
  from: Values,
  columns: number,
) {
  const to = from.slice() as Values;
  const rows = from.length / columns;
  for (let row = 0, at = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) to[column * rows + row] = from[at++]!;
  return to;
}

const layouts: Readonly<Record<Method, Layout>> = {
  gptq: {
    bits: [4, 8],
    form: ["checkpoint_format", "gptq", "gptq_v2"],
    codes: "qweight",
    shift: "qzeros",
    sides: (a, b, perWord) => [b, a * perWord],
    codesOf: ({ buffer }, bits, N) =>
      signed(new Uint8Array(transposed(new Uint32Array(buffer), N).buffer), bits),
    zerosOf: signed,
  },
  awq: {
    bits: [4],
    form: ["version", "gemm"],
    codes: "qweight",
    shift: "qzeros",
    sides: (a, b, perWord) => [b * perWord, a],
    codesOf: (bytes, _, N) => transposed(inOrder(bytes), N),
    zerosOf: inOrder,
  },
  mlx: {
    bits: [4, 8],
    form: ["mode", "affine"],
    codes: "weight",
    shift: "biases",
    sides: (a, b, perWord) => [a, b * perWord],
    codesOf: signed,
  },
};

type Packing = Readonly<{ method: Method; json: JsonObject }>;
type Parts = Readonly<Record<"codes" | "scales" | "shifts", TensorInfo>>;

/** A matrix as blocks that are in no file yet, and what they are made of. */
export interface PackedTensor extends BlockedTensor {
  readonly from: Packing & Readonly<{ bits: 4 | 8; groups: TensorInfo | undefined }> & Parts;
}

export const isPacked = (info: TensorInfo): info is PackedTensor => "from" in info;

const hint =
  "take the checkpoint that it was quantised from (F32, F16 or BF16), with --quantize q4 or q8";
const names = Object.values(methods).join(", ");

/** What a config says of packed weights, and the config without it; what is not read is refused by name. */
export function packingOf(path: string, json: JsonObject) {
  const { quantization, quantization_config: stated = quantization, ...plain } = json;
  if (stated === undefined || stated === null) return { plain: json };
  const how = isRecord(stated) ? stated : {};
  const named = how["quant_method"] ?? (isRecord(quantization) ? "mlx" : undefined);
  const method = (Object.keys(methods) as Method[]).find((known) => known === named);
  const by = `${path}: quantised weights of quant_method ${shown(named)}`;
  if (!method) throw new UserError(`${by} are not read; those of ${names} are`, { hint });
  const [key, ...values] = layouts[method].form;
  const form = shown(how[key] ?? values[0]).toLowerCase();
  if (values.some((known) => form === `"${known}"`))
    return { plain, packing: { method, json: how } };
  throw new UserError(`${by} with the ${key} ${form} are not read; ${values.join()} is`, { hint });
}

/** The checkpoint with the parts of each module as one matrix of blocks, by the name of the weight that it was. */
export async function joinParts(checkpoint: Checkpoint, packing: Packing, model: Model) {
  const { codes, shift } = layouts[packing.method];
  const { tensors } = checkpoint;
  const joined = new Map<string, TensorInfo>();
  for (const [name, info] of tensors) {
    const [, module = "", part = ""] = /^(.*)\.(\w+)$/.exec(name) ?? [];
    const integers = tensors.get(`${module}.${codes}`);
    const isModule = ["I32", "U32"].includes(integers?.dtype ?? "");
    if (isModule && part === codes)
      joined.set(`${module}.weight`, joinedPart(module, info, packing, tensors, model));
    else if (isModule && ["scales", shift, "g_idx"].includes(part)) continue;
    else if (isModule && part === "bias" && !model.weights.has(model.canonicalName(name)!)) {
      // Early GPTQ gives modules without one a bias of zeros.
      if ((await readFloats(info)).some((value) => value !== 0)) joined.set(name, info);
    } else joined.set(name, info);
  }
  return { ...checkpoint, tensors: joined };
}

function joinedPart(
  module: string,
  codes: TensorInfo,
  packing: Packing,
  tensors: Checkpoint["tensors"],
  model: Model,
): PackedTensor {
  const { method, json } = packing;
  const { bits: known, shift, sides, zerosOf } = layouts[method];
  const fail = (problem: string) => new UserError(`${codes.file}: ${module} ${problem}`, { hint });
  if (model.layout === "DF")
    throw fail("is of GPT-2, whose matrices lie the other way round: quantised they are not read");
  const own = json[module];
  const stated = (isRecord(own) ? own : json)["bits"];
  const bits = known.find((read) => read === stated);
  const read = `${methods[method]} is read with ${known.join(" and ")}`;
  if (!bits) throw fail(`is said to have ${shown(stated)} bits; ${read}`);
  const [scales, shifts] = ["scales", shift].map((part) => tensors.get(`${module}.${part}`));
  if (!scales || !shifts) throw fail(`has no ${scales ? shift : "scales"}`);
  const [a = 0, b = 0] = codes.shape;
  const shape = sides(a, b, 32 / bits);
  const [N, K] = shape;
  const numGroups = Number(zerosOf ? scales.shape[0] : scales.shape.at(-1));
  const numShifts = zerosOf ? (8 * shifts.byteLength) / bits : sizeOf(shifts.shape);
  const factors = (["F16", "BF16", "F32"] as const).find((dtype) => dtype === scales.dtype);
  const name = `${module}.weight`;
  const block = K / numGroups;
  const kind = zerosOf ? "zeroPoints" : "biases";
  const kept = keptBits(model, name, bits);
  const info = factors && block % 8 === 0 && blocked({ name, shape }, kept, block, kind, factors);
  if (!info || sizeOf(scales.shape) !== N * numGroups || numShifts !== N * numGroups)
    throw fail(
      `has ${codes.shape.join(" x ")} words of ${bits} bits, with other scales or ${shift}`,
    );
  const groups = tensors.get(`${module}.g_idx`);
  return { ...info, file: codes.file, from: { ...packing, bits, codes, scales, shifts, groups } };
}

/** How the matrices among a model's weights are quantised by others. */
export function quantizedIn(weights: ReadonlyMap<string, TensorInfo>) {
  const all = [...weights.values()].filter(isBlocked);
  const [least] = all.toSorted((a, b) => a.bits - b.bits);
  if (!least) return {};
  const packed = all.find(isPacked);
  const { block, bits } = packed ? { ...packed, bits: packed.from.bits } : least;
  const formats = [...new Set(all.flatMap(({ format }) => format ?? []))].sort();
  const how = packed ? { method: packed.from.method } : { method: "gguf" as const, formats };
  return { quantized: { spec: { bits, block, head: false, ...how }, weights } };
}

export async function* relaid(info: PackedTensor): AsyncGenerator<Uint8Array> {
  const { bits, codes, scales, shifts, method, json, groups } = info.from;
  const { codesOf, zerosOf } = layouts[method];
  const [N] = info.shape as readonly [number];
  const inGroups = groups && new Int32Array((await readBytes(groups)).buffer);
  if (inGroups?.some((group, k) => group !== Math.floor(k / info.block)))
    throw new UserError(`${groups!.file}: ${groups!.name} is of act-order: its groups are spread`, {
      hint: `take a checkpoint made with desc_act: false, or ${hint}`,
    });
  yield packed(codesOf(await readBytes(codes), bits, N), info.bits);
  const half = 2 ** (bits - 1);
  const stored = await readFloats(scales);
  const factors = zerosOf ? transposed(stored, N) : stored;
  yield encodeFloats(info.factors, factors);
  if (zerosOf) {
    // GPTQ's first format stores one less, without carry.
    const isLess = method === "gptq" && json["checkpoint_format"] !== "gptq_v2";
    const zeros = transposed(zerosOf(await readBytes(shifts), bits), N);
    const whole = isLess ? zeros.map((zero) => (zero + 1 === half ? -half : zero + 1)) : zeros;
    yield shiftBytes(info, whole, factors);
  } else {
    const biases = await readFloats(shifts);
    const atZero = factors.map((factor, i) => biases[i]! + half * factor);
    yield encodeFloats("F32", atZero);
  }
}
