// Lowers a graph to an ONNX model: one row per op, in the form that the chosen provider runs best.

import { type Dtype, encodeFloats } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import { fixedShape, type Shape, sizeOf } from "../core/shape.ts";
import type { OpAttributes, OpType } from "../graph/ops.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "../graph/tensor.ts";
import { type Attribute, type ExternalData, ONNX_TYPES, OnnxModel } from "./onnx-model.ts";

/** Where a parameter's bytes are: in a file beside the model, or here. Little-endian, of the parameter's dtype. */
export type WeightBytes = ExternalData | Uint8Array;

export interface LoweringTarget {
  /** Has com.microsoft.FusedMatMul, which transposes and scales as it multiplies (the CPU provider does). */
  readonly fusedMatMul: boolean;
}

/** The model's bytes; `weightOf` is asked for every parameter once. */
export function toOnnx(
  outputs: Outputs,
  weightOf: (name: string) => WeightBytes,
  target: LoweringTarget,
): Uint8Array {
  const context = new Lowering(target, weightOf);
  for (const tensor of topologicalOrder(Object.values(outputs))) context.lower(tensor);
  for (const [name, tensor] of Object.entries(outputs)) {
    context.model.node("Identity", [context.nameOf(tensor)], [name]);
    context.model.output(name, tensor.dtype, tensor.shape);
  }
  return context.model.encode();
}

class Lowering {
  readonly model = new OnnxModel();
  readonly target: LoweringTarget;
  readonly weightOf: (name: string) => WeightBytes;
  readonly #names = new Map<Tensor, string>();
  readonly #statistics = new Map<string, readonly string[]>();

  constructor(target: LoweringTarget, weightOf: (name: string) => WeightBytes) {
    this.target = target;
    this.weightOf = weightOf;
  }

  lower(tensor: Tensor): void {
    const rule = rules[tensor.op] as Rule<OpType>;
    const inputs = tensor.inputs.map((x) => this.nameOf(x));
    this.#names.set(tensor, rule(this, inputs, tensor.attributes, tensor));
  }

  nameOf(tensor: Tensor): string {
    const name = this.#names.get(tensor);
    invariant(name, `${tensor.op} used before it is lowered`);
    return name;
  }

  /** Appends a node with one output and gives its name. */
  emit(
    op: string,
    inputs: readonly string[],
    attributes?: Readonly<Record<string, Attribute>>,
  ): string {
    return this.model.node(op, inputs, [this.model.name(op)], attributes)[0]!;
  }

  reshape(x: string, shape: readonly number[]): string {
    return this.emit("Reshape", [x, this.model.integers(shape)]);
  }

  /** A node with several outputs that several tensors of the graph share. */
  shared(
    op: string,
    inputs: readonly string[],
    outputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>>,
  ): readonly string[] {
    const key = JSON.stringify([op, inputs, attributes]);
    let names = this.#statistics.get(key);
    if (!names) {
      names = outputs.map((name) => this.model.name(name));
      this.#statistics.set(key, this.model.node(op, inputs, names, attributes));
    }
    return names;
  }
}

type Rule<Op extends OpType> = (
  context: Lowering,
  inputs: readonly string[],
  attributes: OpAttributes[Op],
  tensor: Tensor,
) => string;

/** An op that ONNX has under the same name or another, without attributes. */
const direct =
  (op: string): Rule<OpType> =>
  (context, inputs) =>
    context.emit(op, inputs);

type NormRule = (
  context: Lowering,
  inputs: readonly string[],
  attributes: NormAttributes,
) => string;
type NormAttributes = OpAttributes["LayerNorm"];

const layerNorm =
  (output: number): NormRule =>
  (context, inputs, { epsilon }) =>
    context.shared("LayerNormalization", inputs, ["norm", "mean", "invStd"], {
      axis: -1,
      epsilon: { float: epsilon },
    })[output]!;

const rmsNorm =
  (output: number): NormRule =>
  (context, inputs, { epsilon }) =>
    context.shared("SimplifiedLayerNormalization", inputs, ["norm", "invStd"], {
      axis: -1,
      epsilon: { float: epsilon },
    })[output]!;

const rules: { readonly [Op in OpType]: Rule<Op> } = {
  Input: ({ model }, _, { name, shape, dtype }) => {
    model.input(name, dtype, shape);
    return name;
  },
  Parameter: ({ model, weightOf }, _, { name, shape, dtype }) => {
    const weight = weightOf(name);
    return weight instanceof Uint8Array
      ? model.initializer(name, dtype, fixedShape(shape), weight)
      : model.externalInitializer(name, dtype, fixedShape(shape), weight);
  },
  Constant: ({ model }, _, { data, shape, dtype }) => {
    const bytes =
      data instanceof Float32Array
        ? encodeFloats("F32", data)
        : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return model.initializer(model.name("constant"), dtype, fixedShape(shape), bytes);
  },
  Add: direct("Add"),
  Sub: direct("Sub"),
  Mul: direct("Mul"),
  Div: direct("Div"),
  Neg: direct("Neg"),
  Exp: direct("Exp"),
  Log: direct("Log"),
  Tanh: direct("Tanh"),
  Sigmoid: direct("Sigmoid"),
  Erf: direct("Erf"),
  Gelu: (context, inputs, { approximate }) => context.emit("Gelu", inputs, { approximate }),
  Cast: (context, inputs, { to }) => context.emit("Cast", inputs, { to: ONNX_TYPES[to] }),
  LessOrEqual: direct("LessOrEqual"),
  And: direct("And"),
  Where: direct("Where"),
  MatMul: lowerMatMul,
  ReduceSum: (context, [x], { axes }) =>
    context.emit("ReduceSum", [x!, context.model.integers(axes)]),
  LogSumExp: (context, [x]) => context.emit("ReduceLogSumExp", [x!, context.model.integers([-1])]),
  Softmax: (context, inputs) => context.emit("Softmax", inputs, { axis: -1 }),
  LayerNorm: layerNorm(0),
  LayerNormMean: layerNorm(1),
  LayerNormInvStd: layerNorm(2),
  RmsNorm: rmsNorm(0),
  RmsNormInvStd: rmsNorm(1),
  Rotary: lowerRotary,
  Reshape: (context, [x], { shape }, { inputs }) =>
    context.reshape(x!, openShape(shape, inputs[0]!.shape)),
  Transpose: (context, inputs, { permutation }) =>
    context.emit("Transpose", inputs, { perm: permutation }),
  Expand: (context, [x], { shape }) =>
    context.emit("Expand", [x!, context.model.integers(fixedShape(shape))]),
  Slice: (context, [x], { axis, start, end }) =>
    context.emit("Slice", [x!, ...[start, end, axis].map((v) => context.model.integers([v]))]),
  Pad: (context, [x], { axis, before, after }) =>
    context.emit("Pad", [
      x!,
      context.model.integers([before, after]),
      "",
      context.model.integers([axis]),
    ]),
  Concat: (context, inputs, { axis }) => context.emit("Concat", inputs, { axis }),
  Gather: (context, inputs) => context.emit("Gather", inputs, { axis: 0 }),
  ScatterAdd: (context, [indices, updates], _, { inputs, shape, dtype }) => {
    const count = sizeOf(inputs[0]!.shape);
    const zero = context.emit("Cast", [context.model.integers([0], [])], { to: ONNX_TYPES[dtype] });
    const table = context.emit("Expand", [zero, context.model.integers(fixedShape(shape))]);
    const rows = context.reshape(indices!, [count, 1]);
    const flat = context.reshape(updates!, [count, ...fixedShape(shape).slice(1)]);
    return context.emit("ScatterND", [table, rows, flat], { reduction: "add" });
  },
  CumSum: (context, [x]) => context.emit("CumSum", [x!, context.model.integers([-1], [])]),
};

/** A Reshape target with open dimensions: 0 copies the input's at the same place, -1 is what remains. */
function openShape(shape: Shape, from: Shape): number[] {
  const target = shape.map((dim, i) => {
    if (typeof dim === "number") return dim;
    return dim === from[i] ? 0 : -1;
  });
  invariant(target.filter((dim) => dim === -1).length <= 1, "two unknown dimensions");
  return target;
}

function lowerMatMul(
  context: Lowering,
  [a, b]: readonly string[],
  { transposeA, transposeB, alpha }: OpAttributes["MatMul"],
  { inputs, dtype }: Tensor,
): string {
  if (!transposeA && !transposeB && alpha === 1) return context.emit("MatMul", [a!, b!]);
  if (context.target.fusedMatMul)
    return context.emit("com.microsoft.FusedMatMul", [a!, b!], {
      transA: Number(transposeA),
      transB: Number(transposeB),
      alpha: { float: alpha },
    });
  const [x, y] = inputs as [Tensor, Tensor];
  if (x.shape.length === 2 && y.shape.length === 2)
    return context.emit("Gemm", [a!, b!], {
      transA: Number(transposeA),
      transB: Number(transposeB),
      alpha: { float: alpha },
    });
  const left = transposeA ? swapLast(context, a!, x.shape.length) : a!;
  const right = transposeB ? swapLast(context, b!, y.shape.length) : b!;
  const product = context.emit("MatMul", [left, right]);
  return alpha === 1
    ? product
    : context.emit("Mul", [product, floatConstant(context, alpha, dtype)]);
}

function swapLast(context: Lowering, x: string, rank: number): string {
  const perm = Array.from({ length: rank }, (_, i) => i);
  perm.push(...perm.splice(-2).reverse());
  return context.emit("Transpose", [x], { perm });
}

function floatConstant({ model }: Lowering, value: number, dtype: Dtype): string {
  const bytes = encodeFloats(
    dtype === "F16" || dtype === "BF16" ? dtype : "F32",
    Float32Array.of(value),
  );
  return model.initializer(model.name("constant"), dtype, [], bytes);
}

/** [x1 cos - x2 sin, x2 cos + x1 sin, rest] */
function lowerRotary(
  context: Lowering,
  [x, cos, sin]: readonly string[],
  _: OpAttributes["Rotary"],
  { inputs }: Tensor,
): string {
  const half = Number(inputs[1]!.shape.at(-1));
  const rest = Number(inputs[0]!.shape.at(-1)) - 2 * half;
  const sizes = rest > 0 ? [half, half, rest] : [half, half];
  const parts = sizes.map(() => context.model.name("part"));
  context.model.node("Split", [x!, context.model.integers(sizes)], parts, { axis: -1 });
  const [x1, x2, ...untouched] = parts as [string, string, ...string[]];
  const mul = (a: string, b: string) => context.emit("Mul", [a, b]);
  const first = context.emit("Sub", [mul(x1, cos!), mul(x2, sin!)]);
  const second = context.emit("Add", [mul(x2, cos!), mul(x1, sin!)]);
  return context.emit("Concat", [first, second, ...untouched], { axis: -1 });
}

/** Parameters that the outputs reach, for binding. */
export function parametersOf(outputs: Outputs): Tensor<"Parameter">[] {
  return topologicalOrder(Object.values(outputs)).filter((tensor) => isOp(tensor, "Parameter"));
}
