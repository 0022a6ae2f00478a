// Lowers a graph to an ONNX model: one row per op, in the form that the chosen provider runs best.

import { encodeFloats } from "../../core/dtype.ts";
import { invariant } from "../../core/errors.ts";
import { encode, type Message } from "../../core/protobuf.ts";
import { fixedShape, type Shape, sizeOf } from "../../core/shape.ts";
import { ARITHMETIC, each, type Operands, type OpType } from "../../graph/ops.ts";
import { isOp, leaves, type Outputs, type Tensor } from "../../graph/tensor.ts";
import * as casts from "./casts.ts";
import * as composed from "./composed.ts";
import { orderOf } from "./order.ts";
import { opened } from "./open.ts";
import { isCodes, Lowering, type LoweringTarget, type Rule, type WeightOf } from "./lowering.ts";

export { type LoweringTarget, targets, type WeightOf } from "./lowering.ts";
export type { WeightBytes } from "./model.ts";

/** The model's bytes; `weightOf` is asked for every parameter once. */
export const toOnnx = (...of: Parameters<typeof lowered>): Uint8Array => encode(lowered(...of));

/** The model as a message, in which weights may come late. */
export function lowered(outputs: Outputs, weightOf: WeightOf, target: LoweringTarget): Message {
  const context = new Lowering(target, weightOf);
  const order = orderOf(outputs);
  if (target.fewLaunches) context.findParts(order);
  const ids = [...leaves(outputs, "Input").values()].find(({ dtype }) => dtype === "I64");
  context.anyIds = ids?.attributes.name ?? "";
  for (const tensor of order) {
    if (casts.isLateCast(context, tensor) || isCodes(tensor)) continue;
    const rule = rules[tensor.op] as Rule<OpType>;
    const lower = (inputs: readonly string[]) =>
      rule(context, inputs as Operands<string>, tensor.attributes, tensor);
    const special = isOp(tensor, "MatMul")
      ? (casts.productOfBlocks(context, tensor) ??
        casts.productByParts(context, tensor, (...operands) => lower(operands)))
      : undefined;
    const lowered = () => opened(context, tensor, casts.operandsOf(context, tensor), lower);
    context.names.set(tensor, special ?? lowered());
  }
  const named = new Set<Tensor>();
  for (const [name, tensor] of Object.entries(outputs)) {
    const computed = context.nameOf(tensor);
    if (target.fewLaunches && tensor.inputs.length > 0 && !named.has(tensor))
      context.model.rename(computed, name);
    else context.model.node("Identity", [computed], [name]);
    named.add(tensor);
    context.model.output(name, tensor.dtype, tensor.shape);
  }
  return context.model.message();
}

type Compose = (context: Lowering, x: string, tensor: Tensor, epsilon: number) => string;

/** One output of a normalization: the values themselves, or a statistic, composed where the provider gives none. */
const norm =
  (op: LoweringTarget["normStatistics"][number], outputs: readonly string[]) =>
  (index: number, compose?: Compose): Rule<OpType & `${string}Norm${string}`> =>
  (context, inputs, { epsilon }, tensor) => {
    const isGiven = context.target.normStatistics.includes(op);
    if (compose && !isGiven) return compose(context, inputs[0], tensor.inputs[0]!, epsilon);
    const attributes = { axis: -1, epsilon: { float: epsilon } };
    return context.shared(op, inputs, isGiven ? outputs : [op], attributes)[index]!;
  };

const layerNorm = norm("LayerNormalization", ["norm", "mean", "invStd"]);
const rmsNorm = norm("SimplifiedLayerNormalization", ["norm", "invStd"]);

const rules: { readonly [Op in OpType]: Rule<Op> } = {
  ...each([...ARITHMETIC, "LessOrEqual", "And", "Where"], (op): Rule<OpType> => {
    return (context, inputs) => context.emit(op, inputs);
  }),
  Input: (context, _, { name, shape, dtype }) => {
    context.model.input(name, context.dtypeOf(dtype), shape);
    return name;
  },
  Parameter: ({ model, weightOf }, _, { name, shape, dtype }) =>
    model.initializer(name, dtype, fixedShape(shape), weightOf(name)),
  Constant: (context, _, { data, shape }) =>
    data instanceof BigInt64Array
      ? context.integers(data, fixedShape(shape))
      : context.model.constant("F32", fixedShape(shape), encodeFloats("F32", data)),
  // No provider has it for bf16.
  Gelu: (context, [x], { approximate }, { dtype }) =>
    dtype === "BF16"
      ? context.cast(context.emit("Gelu", [context.cast(x, "F32")], { approximate }), dtype)
      : context.emit("Gelu", [x], { approximate }),
  Cast: (context, [x], { to }) => context.cast(x, to),
  Dequantize: (context, parts, _, tensor) => casts.dequantized(context, tensor, parts),
  MatMul: (context, operands, attributes, tensor) => {
    if (tensor.inputs.length === 3) return composed.gemm(context, operands, attributes);
    const [a, b] = operands;
    const { transposeA, transposeB, alpha } = attributes;
    if (!transposeA && !transposeB && alpha === 1) return context.emit("MatMul", [a, b]);
    return context.target.fusedMatMul
      ? context.emit("com.microsoft.FusedMatMul", [a, b], composed.scaling(attributes))
      : composed.matMul(context, operands, attributes, tensor);
  },
  ReduceSum: (context, [x], { axes }) => context.emit("ReduceSum", [x, axes]),
  ReduceMean: (context, [x], { axes }) => context.emit("ReduceMean", [x, axes]),
  LogSumExp: (context, [x]) => composed.logSumExp(context, x),
  Softmax: (context, [x]) => composed.softmax(context, x),
  LayerNorm: layerNorm(0),
  LayerNormMean: layerNorm(1, composed.mean),
  LayerNormInvStd: layerNorm(2, composed.layerNormInvStd),
  RmsNorm: rmsNorm(0),
  RmsNormInvStd: rmsNorm(1, composed.rmsNormInvStd),
  // [x1 cos - x2 sin, x2 cos + x1 sin, rest]
  Rotary: (context, [x, cos, sin], _, { inputs }) => {
    const half = Number(inputs[1]!.shape.at(-1));
    const rest = Number(inputs[0]!.shape.at(-1)) - 2 * half;
    const sizes = rest > 0 ? [half, half, rest] : [half, half];
    const parts = sizes.map(() => context.model.name("part"));
    context.model.node("Split", [x, sizes], parts, { axis: -1 });
    const [x1, x2, ...untouched] = parts as [string, string, ...string[]];
    const mul = (a: string, b: string) => context.emit("Mul", [a, b]);
    const first = context.emit("Sub", [mul(x1, cos), mul(x2, sin)]);
    const second = context.emit("Add", [mul(x2, cos), mul(x1, sin)]);
    return context.emit("Concat", [first, second, ...untouched], { axis: -1 });
  },
  Reshape: (context, [x], { shape }, { inputs }) =>
    context.emit("Reshape", [x, openShape(shape, inputs[0]!.shape)]),
  Transpose: (context, inputs, { permutation }) =>
    context.emit("Transpose", inputs, { perm: permutation }),
  Expand: (context, [x], { shape }) => context.emit("Expand", [x, fixedShape(shape)]),
  Slice: (context, [x], { axis, start, end }, { inputs, dtype }) => {
    if (context.dtypeOf(dtype) === "I32") return composed.slice(context, x, axis, start, end);
    const parts = context.partsOf.get(inputs[0]!);
    if (!parts) return context.slice(x, axis, start, end);
    const names = Array.from({ length: parts }, () => "part");
    const split = context.shared("Split", [x], names, { axis, num_outputs: parts });
    return split[start / (end - start)]!;
  },
  Pad: (context, [x], { axis, before, after }) =>
    context.emit("Pad", [x, [before, after], "", [axis]]),
  Concat: (context, inputs, { axis }) => context.emit("Concat", inputs, { axis }),
  Gather: (context, names, _, tensor) => casts.gather(context, tensor, names),
  ScatterAdd: (context, operands, attributes, tensor) => {
    if (!context.target.scatterAdd)
      return composed.scatterAdd(context, operands, attributes, tensor);
    const shape = fixedShape(tensor.shape);
    const count = sizeOf(tensor.inputs[0]!.shape);
    const zero = context.cast(context.model.integers([0], []), tensor.dtype);
    const table = context.emit("Expand", [zero, shape]);
    const rows = context.emit("Reshape", [operands[0], [count, 1]]);
    const flat = context.emit("Reshape", [operands[1], [count, ...shape.slice(1)]]);
    return context.emit("ScatterND", [table, rows, flat], { reduction: "add" });
  },
  CumSum: (context, [x]) => context.emit("CumSum", [x, context.model.integers([-1], [])]),
};

/** A Reshape target with open dimensions: 0 copies the input's at the same place, -1 is what remains. */
function openShape(shape: Shape, from: Shape): number[] {
  const open = (dim: string, i: number) => (dim === from[i] ? 0 : -1);
  const target = shape.map((dim, i) => (typeof dim === "number" ? dim : open(dim, i)));
  invariant(target.filter((dim) => dim === -1).length <= 1, "two unknown dimensions");
  return target;
}
