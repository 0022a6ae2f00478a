// What the rows of the lowering table work with: the model that grows, the names of what is lowered, the target.

import { type Dtype, DTYPE_BYTES, encodeFloats } from "../../core/dtype.ts";
import { invariant } from "../../core/errors.ts";
import { type Dim, fixedShape, sizeOf } from "../../core/shape.ts";
import type { OpAttributes, Operands, OpType } from "../../graph/ops.ts";
import { isOp, type Tensor } from "../../graph/tensor.ts";
import { largeTiles, smallTiles, type Tiling } from "../../nn/tiling.ts";
import { type Attributes, ONNX_TYPES, OnnxModel, type Operand, type WeightBytes } from "./model.ts";

/** What a provider has; what it lacks, as what is absent here, is composed of ops that every provider has. */
export interface LoweringTarget {
  /** com.microsoft.FusedMatMul, which transposes and scales as it multiplies. */
  readonly fusedMatMul?: boolean;
  /** Which normalizations give their statistics as further outputs. */
  readonly normStatistics: readonly ("LayerNormalization" | "SimplifiedLayerNormalization")[];
  /** Each node is the launch of a kernel, so that fewer, larger ones are worth what they copy. */
  readonly fewLaunches?: boolean;
  /** Its softmax of half precision computes in F32. */
  readonly softmaxInF32?: boolean;
  /** A LogSoftmax in one kernel, and faster than the largest of a row. */
  readonly logSoftmax?: boolean;
  /** A ScatterND that adds. */
  readonly scatterAdd?: boolean;
  /** Arithmetic with 64-bit integers; without it ids and positions are 32-bit, and fed so. */
  readonly int64: boolean;
  /** The shapes of parts of a long axis are known to the run alone (open.ts). */
  readonly opensShapes?: boolean;
  /** A Gather of integers of 4 and 8 bits; without it a table in blocks is widened whole. */
  readonly gathersCodes?: boolean;
  /** A DequantizeLinear of blocks of 8 bits, and not of 4 alone. */
  readonly blocksOfBytes?: boolean;
  /** com.microsoft.MatMulNBits, a product with a matrix in blocks. */
  readonly productOfBlocks?: boolean;
  readonly tiling: Tiling;
  /** Casts stored matrices where they are used, not at load, and at most so many bytes at once; absent: at load, whole. */
  readonly castBytes?: number;
}

/** Far more than a product needs to run at full speed, far less than the output embedding of a large vocabulary. */
export const CAST_BYTES = 128 * 1024 ** 2;

const little = { tiling: largeTiles, normStatistics: [], blocksOfBytes: true, int64: true };
const everything: LoweringTarget = {
  ...little,
  fusedMatMul: true,
  normStatistics: ["LayerNormalization", "SimplifiedLayerNormalization"],
  scatterAdd: true,
  gathersCodes: true,
};
const cuda = { fewLaunches: true, gathersCodes: false, blocksOfBytes: false };

type TargetName = "cpu" | "cuda" | "webgpu" | "dml" | "coreml" | "portable";

/** By execution provider; `portable` keeps to ops that every runtime has. */
export const targets: Readonly<Record<TargetName, LoweringTarget>> = {
  cpu: { ...everything, tiling: smallTiles, opensShapes: true, castBytes: CAST_BYTES },
  // Its ReduceMax takes 5 ms for 512 MiB on an H200, its LogSoftmax half a millisecond.
  cuda: { ...everything, ...cuda, softmaxInF32: true, logSoftmax: true },
  // The second output of its SimplifiedLayerNormalization stays unwritten.
  webgpu: { ...little, fewLaunches: true, normStatistics: ["LayerNormalization"], int64: false },
  dml: little,
  coreml: little,
  portable: { ...everything, fusedMatMul: false, normStatistics: [], productOfBlocks: true },
};

/** Where a parameter's bytes are; `isOffset`: codes of blocks shifted to begin at 0, as MatMulNBits has them. */
export type WeightOf = (name: string, isOffset?: boolean) => WeightBytes;

/** Gives the name of the tensor's value, made of those of its operands. */
export type Rule<Op extends OpType> = (
  context: Lowering,
  inputs: Operands<string>,
  attributes: OpAttributes[Op],
  tensor: Tensor,
) => string;

/** Whether a tensor is integers that Dequantize takes, U8 being two of 4 bits each. */
export const isCodes = (tensor: Tensor): tensor is Tensor<"Parameter"> =>
  isOp(tensor, "Parameter") && (tensor.dtype === "I8" || tensor.dtype === "U8");

export class Lowering {
  readonly model = new OnnxModel();
  readonly target: LoweringTarget;
  readonly weightOf: WeightOf;
  /** Tensors whose slices together are all of their equal parts, and how many: outputs of one node. */
  readonly partsOf = new Map<Tensor, number>();
  /** An input of integers, and what has no shape before the run, with the length that it shares with others. */
  anyIds = "";
  readonly open = new Map<Tensor, Dim>();
  /** Of what is lowered. */
  readonly names = new Map<Tensor, string>();
  readonly #codes = new Set<string>();
  readonly #counts = new Map<number, string>();
  readonly #shared = new Map<string, readonly string[]>();

  constructor(target: LoweringTarget, weightOf: WeightOf) {
    this.target = target;
    this.weightOf = weightOf;
  }

  nameOf(tensor: Tensor): string {
    const name = isCodes(tensor) ? this.codes(tensor) : this.names.get(tensor);
    invariant(name, `${tensor.op} used before it is lowered`);
    return name;
  }

  /** A matrix of codes, or some of its rows: only what is used comes into the model. */
  codes({ attributes }: Tensor<"Parameter">, start = 0, end = Number(attributes.shape[0])): string {
    const { name, shape, dtype } = attributes;
    const label = `${name} ${start} to ${end}`;
    if (this.#codes.has(label)) return label;
    this.#codes.add(label);
    const dims = [end - start, ...fixedShape(shape).slice(1)];
    const rowBytes = (sizeOf(dims) * DTYPE_BYTES[dtype]) / (end - start);
    const [from, byteLength] = [start * rowBytes, (end - start) * rowBytes];
    const stored = this.weightOf(name);
    let bytes = stored;
    if (stored instanceof Uint8Array) bytes = stored.subarray(from, from + byteLength);
    else if ("location" in stored) bytes = { ...stored, offset: stored.offset + from, byteLength };
    invariant(bytes.byteLength === byteLength, `rows of ${name}, which comes late`);
    if (dtype !== "U8") return this.model.initializer(label, dtype, dims, bytes);
    return this.model.initializer(label, "I4", [...dims.slice(0, -1), 2 * dims.at(-1)!], bytes);
  }

  /** A matrix of codes that begin at 0, [rows, blocks, bytes of a block], or of zero points, [rows, bytes]. */
  offsetCodes({ attributes: { name, shape } }: Tensor<"Parameter">, numBlocks?: number): string {
    const [rows, bytes] = fixedShape(shape) as [number, number];
    const dims = numBlocks === undefined ? [rows, bytes] : [rows, numBlocks, bytes / numBlocks];
    if (!this.#codes.has(name)) this.model.initializer(name, "U8", dims, this.weightOf(name, true));
    this.#codes.add(name);
    return name;
  }

  findParts(order: readonly Tensor[]): void {
    const slices = new Map<Tensor, Tensor<"Slice">[]>();
    for (const x of order)
      if (isOp(x, "Slice")) slices.set(x.inputs[0]!, [...(slices.get(x.inputs[0]!) ?? []), x]);
    for (const [whole, parts] of slices) {
      const { axis, start, end } = parts[0]!.attributes;
      const size = end - start;
      const isPart = ({ attributes: other }: Tensor<"Slice">) =>
        other.axis === axis && other.end - other.start === size && other.start % size === 0;
      if (parts.length * size === whole.shape[axis] && parts.every(isPart))
        this.partsOf.set(whole, parts.length);
    }
  }

  /** The number format in which the target holds one of the graph's. */
  dtypeOf(dtype: Dtype): Dtype {
    return dtype === "I64" && !this.target.int64 ? "I32" : dtype;
  }

  /** Appends a node with one output and gives its name. */
  emit(op: string, inputs: readonly Operand[], attributes?: Attributes): string {
    return this.model.node(op, inputs, [this.model.name(op)], attributes)[0]!;
  }

  slice(x: string, axis: number, start: number, end: number): string {
    return this.emit("Slice", [x, [start], [end], [axis]]);
  }

  cast(x: string, to: Dtype): string {
    return this.emit("Cast", [x], { to: ONNX_TYPES[this.dtypeOf(to)] });
  }

  /** A number of a floating-point dtype. */
  scalar(value: number, dtype: Dtype): string {
    const format = dtype === "F16" || dtype === "BF16" ? dtype : "F32";
    return this.model.constant(format, [], encodeFloats(format, Float32Array.of(value)));
  }

  /** Values of the graph's integers, in the target's format. */
  integers(values: Iterable<number | bigint>, shape: readonly number[]): string {
    if (this.target.int64) return this.model.integers(values, shape);
    const data = Int32Array.from(values as Iterable<number>, Number);
    return this.model.constant("I32", shape, new Uint8Array(data.buffer));
  }

  /** The integers below a number. */
  below(count: number): string {
    const name = this.#counts.get(count) ?? this.integers(Array(count).keys(), [count]);
    this.#counts.set(count, name);
    return name;
  }

  /** A node whose outputs all share that ask for the same; `outputs` says what they are. */
  shared(
    op: string,
    inputs: readonly Operand[],
    outputs: readonly string[] = [op],
    attributes: Attributes = {},
  ): readonly [string, ...string[]] {
    const key = JSON.stringify([op, inputs, attributes]);
    const named = () => outputs.map((name) => this.model.name(name));
    const names = this.#shared.get(key) ?? this.model.node(op, inputs, named(), attributes);
    this.#shared.set(key, names);
    return names as [string, ...string[]];
  }
}
