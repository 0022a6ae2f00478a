// Examples of every op, complete by type: what its operands are and how a graph uses them. The gradient test holds
// them against central differences, the agreement test runs them on every device.

import { encodeFloats } from "../../src/core/dtype.ts";
import * as g from "../../src/graph/build.ts";
import type { OpAttributes, OpType } from "../../src/graph/ops.ts";
import { node, type Tensor } from "../../src/graph/tensor.ts";
import { eighths, fixed, given, ids, normal, type Operand } from "./operands.ts";

export interface OpCase {
  readonly name: string;
  readonly operands: readonly Operand[];
  /** The operands as inputs, in order; the result is F32 and depends on a node of the op. */
  readonly build: (...operands: readonly Tensor[]) => Tensor;
  /** Bytes of the parameters that the graph has. */
  readonly parameters?: ReadonlyMap<string, Uint8Array>;
  /** Of the differences, where values are so large that their rounding shows; 1e-4 by default. */
  readonly tolerance?: number;
  /** Computes in half precision, which not every engine can. */
  readonly isHalf?: boolean;
}

export interface OpRow {
  /** "none": the op has no gradient for any input. */
  readonly gradient: "checked" | "none";
  readonly cases: readonly OpCase[];
}

type Build = OpCase["build"];

const example = (name: string, operands: readonly Operand[], build: Build): OpCase => ({
  name,
  operands,
  build,
});
const checked = (...cases: readonly OpCase[]): OpRow => ({ gradient: "checked", cases });
const none = (...cases: readonly OpCase[]): OpRow => ({ gradient: "none", cases });

/** A function of one tensor, at ordinary values and at some where naive formulas overflow or cancel. */
function unary(build: (x: Tensor) => Tensor, extremes: readonly number[] = [-30, -9, -4, 0, 4, 9]) {
  return checked(
    example("[2, 3, 4]", [normal(2, 3, 4)], build),
    example(`at ${extremes.join(", ")}`, [given(extremes)], build),
  );
}

/** Equal shapes, and broadcasting of either side, of both, and of a scalar. */
function binary(
  build: (a: Tensor, b: Tensor) => Tensor,
  right: (...shape: number[]) => Operand = normal,
) {
  return checked(
    example("equal shapes", [normal(2, 3), right(2, 3)], build),
    example("a row on the right", [normal(2, 3, 4), right(4)], build),
    example("a column on the left", [normal(3, 1), right(2, 3, 4)], build),
    example("both broadcast", [normal(2, 1, 4), right(3, 1)], build),
    example("a scalar on the left", [normal(), right(2, 3)], build),
    example("a scalar on the right", [normal(2, 3), right()], build),
    example("one tensor twice", [right(2, 3)], (x) => build(x, x)),
  );
}

const flags = (x: Tensor) => g.lessOrEqual(x, g.scalar(0));
const asFloats = (x: Tensor) => g.cast(x, "F32");

function matMulCases(): OpCase[] {
  const transposes = [false, true].flatMap((transposeA) =>
    [false, true].map((transposeB) => ({ transposeA, transposeB })),
  );
  const product = (
    name: string,
    batchA: readonly number[],
    batchB: readonly number[],
    options: OpAttributes["MatMul"],
  ) => {
    const a = normal(...batchA, ...(options.transposeA ? [5, 3] : [3, 5]));
    const b = normal(...batchB, ...(options.transposeB ? [4, 5] : [5, 4]));
    return example(name, [a, b], (x, y) => g.matMul(x, y, options));
  };
  const withRow = (name: string, options: OpAttributes["MatMul"]) => {
    const { operands, build } = product(name, [], [], options);
    const add = (a: Tensor, b: Tensor, row: Tensor) =>
      node("MatMul", [...build(a, b).inputs, row], options);
    return example(name, [...operands, normal(4)], add);
  };
  return transposes.flatMap((transpose) => {
    const form = `${transpose.transposeA ? "aᵀ" : "a"} ${transpose.transposeB ? "bᵀ" : "b"}`;
    const plain = { ...transpose, alpha: 1 };
    const scaled = { ...transpose, alpha: -0.25 };
    return [
      product(`${form}, matrices`, [], [], plain),
      product(`${form}, scaled`, [], [], scaled),
      product(`${form}, batches, scaled`, [2, 2], [2, 2], scaled),
      product(`${form}, a matrix for all of the batch`, [2, 2], [], plain),
      product(`${form}, a batch for one matrix`, [], [2], scaled),
      product(`${form}, batches of another rank`, [2, 3], [3], scaled),
      product(`${form}, batches that broadcast`, [2, 1], [1, 3], plain),
      withRow(`${form}, scaled, plus a row`, scaled),
    ];
  });
}

const epsilon = 1e-5;
const layerNormOperands = () => [normal(2, 3, 6), normal(6), normal(6)];
const rmsNormOperands = () => [normal(2, 3, 6), normal(6)];
const statistic = (
  op: "LayerNormMean" | "LayerNormInvStd" | "RmsNormInvStd",
  [x, ...affine]: readonly Operand[],
) =>
  checked(
    example("[2, 3, 6]", [x!, ...affine.map(fixed)], (...inputs) => node(op, inputs, { epsilon })),
  );

const angles = (...shape: readonly number[]) => fixed(normal(...shape));
const rotary: Build = (x, cos, sin) => g.rotary(x, cos, sin);

const sixHalves = Float32Array.of(-2, -0.5, 0, 0.75, 1.5, 3);
const parameterCase = (dtype: "F32" | "F16" | "BF16"): OpCase => ({
  name: dtype,
  operands: [normal(2, 3)],
  build: (x) => g.mul(x, g.cast(g.parameter("p", [2, 3], dtype), "F32")),
  parameters: new Map([["p", encodeFloats(dtype, sixHalves)]]),
});

export const opCases: { readonly [Op in OpType]: OpRow } = {
  Input: none(example("as output", [normal(2, 3)], (x) => x)),
  Parameter: none(...(["F32", "F16", "BF16"] as const).map(parameterCase)),
  Constant: none(
    example("numbers", [normal(2, 2)], (x) => g.add(x, g.constant([1, -0, 1e-30, 3e3], [2, 2]))),
    example("integers", [normal(4, 2)], (x) => g.gather(x, g.integers([3, 0, 3], [3]))),
  ),
  Add: binary(g.add),
  Sub: binary(g.sub),
  Mul: binary(g.mul),
  Neg: unary(g.neg),
  Exp: unary(g.exp, [-30, -9, -1, 0, 1, 2]),
  Tanh: unary(g.tanh),
  Sigmoid: unary(g.sigmoid),
  Erf: unary(g.erf),
  Gelu: checked(
    ...unary((x) => g.gelu(x, "none")).cases,
    ...unary((x) => g.gelu(x, "tanh")).cases.map((c) => ({ ...c, name: `tanh, ${c.name}` })),
  ),
  Cast: checked(
    {
      name: "F32 to F16 and back",
      operands: [eighths(2, 3)],
      build: (x) => asFloats(g.scale(g.cast(x, "F16"), 0.5)),
      isHalf: true,
    },
    example("F32 to the same", [normal(3)], (x) => node("Cast", [x], { to: "F32" })),
    example("I64 to F32", [ids([4], [0, -3, 7, 70_000])], (x) => asFloats(x)),
  ),
  LessOrEqual: none(
    example("numbers", [fixed(normal(3, 4)), fixed(normal(4))], (a, b) =>
      asFloats(g.lessOrEqual(a, b)),
    ),
    example("equal numbers", [fixed(given([1, 2, 3]))], (x) => asFloats(g.lessOrEqual(x, x))),
    example("integers", [ids([3, 1], [0, 1, 2]), ids([3], [0, 1, 2])], (a, b) =>
      asFloats(g.lessOrEqual(a, b)),
    ),
  ),
  And: none(
    example("broadcast", [fixed(normal(3, 1)), fixed(normal(2, 1, 4))], (a, b) =>
      asFloats(g.and(flags(a), flags(b))),
    ),
  ),
  Where: checked(
    example("equal shapes", [fixed(normal(3, 4)), normal(3, 4), normal(3, 4)], (c, a, b) =>
      g.where(flags(c), a, b),
    ),
    example("all broadcast", [fixed(normal(3, 1)), normal(2, 1, 4), normal()], (c, a, b) =>
      g.where(flags(c), a, b),
    ),
  ),
  MatMul: checked(...matMulCases()),
  ReduceSum: checked(
    ...[[0, 2], [1], [-1], [0, 1, 2]].map((axes) =>
      example(`axes ${axes.join(", ")}`, [normal(2, 3, 4)], (x) => g.reduceSum(x, axes)),
    ),
  ),
  ReduceMean: checked(
    ...[[0, 2], [-1]].map((axes) =>
      example(`axes ${axes.join(", ")}`, [normal(2, 3, 4)], (x) => g.reduceMean(x, axes)),
    ),
  ),
  LogSumExp: checked(
    example("[2, 3, 5]", [normal(2, 3, 5)], (x) => g.logSumExp(x)),
    example("far from zero", [given([-40, -39, -41])], (x) => g.logSumExp(x)),
    {
      name: "beyond the range of exp",
      operands: [given([1000, 999, -1000])],
      build: (x) => g.logSumExp(x),
      tolerance: 1e-2,
    },
  ),
  Softmax: checked(
    example("[2, 3, 5]", [normal(2, 3, 5)], (x) => g.softmax(x)),
    example("masked", [given([0.5, -1e9, 1, -1e9])], (x) => g.softmax(x)),
    example("beyond the range of exp", [given([1000, 999, -1000])], (x) => g.softmax(x)),
  ),
  LayerNorm: checked(
    example("[2, 3, 6]", layerNormOperands(), (x, w, b) => g.layerNorm(x, w, b, epsilon)),
  ),
  LayerNormMean: statistic("LayerNormMean", layerNormOperands()),
  LayerNormInvStd: statistic("LayerNormInvStd", layerNormOperands()),
  RmsNorm: checked(example("[2, 3, 6]", rmsNormOperands(), (x, w) => g.rmsNorm(x, w, epsilon))),
  RmsNormInvStd: statistic("RmsNormInvStd", rmsNormOperands()),
  Rotary: checked(
    example("the whole head", [normal(1, 2, 3, 6), angles(3, 3), angles(3, 3)], rotary),
    example("a part of the head", [normal(1, 2, 3, 6), angles(3, 2), angles(3, 2)], rotary),
    example(
      "positions per sequence",
      [normal(2, 2, 3, 4), angles(2, 1, 3, 2), angles(2, 1, 3, 2)],
      rotary,
    ),
  ),
  Reshape: checked(
    example("to more axes", [normal(4, 6)], (x) => g.reshape(x, [2, 2, 3, 2])),
    example("to a scalar", [normal(1, 1)], (x) => g.reshape(x, [])),
    example("integers", [ids([2, 2], [1, 2, 3, 4])], (x) => asFloats(g.reshape(x, [4]))),
  ),
  Transpose: checked(
    example("a cycle", [normal(2, 3, 4)], (x) => g.transpose(x, [2, 0, 1])),
    example("heads", [normal(2, 3, 2, 4)], (x) => g.transpose(x, [0, 2, 1, 3])),
  ),
  Expand: checked(
    example("axes of one", [normal(3, 1)], (x) => g.expand(x, [2, 3, 4])),
    example("a scalar", [normal()], (x) => g.expand(x, [2, 3])),
  ),
  Slice: checked(
    example("the middle", [normal(2, 5, 3)], (x) => g.slice(x, 1, 1, 4)),
    example("the last axis", [normal(2, 5)], (x) => g.slice(x, -1, 2, 5)),
    example("integers", [ids([4], [5, 6, 7, 8])], (x) => asFloats(g.slice(x, 0, 1, 3))),
  ),
  Pad: checked(
    example("both ends", [normal(2, 3)], (x) => g.pad(x, 1, 1, 2)),
    example("the front", [normal(2, 3, 2)], (x) => g.pad(x, 0, 2, 0)),
  ),
  Concat: checked(
    example("three parts", [normal(2, 1, 3), normal(2, 4, 3), normal(2, 2, 3)], (...parts) =>
      g.concat(parts, 1),
    ),
    example("one part twice", [normal(2, 3)], (x) => g.concat([x, x], -1)),
  ),
  Gather: checked(
    example("rows, one of them twice", [normal(5, 3), ids([4], [4, 0, 2, 0])], (table, i) =>
      g.gather(table, i),
    ),
    example("a batch of rows", [normal(5, 2, 2), ids([2, 3], [0, 1, 1, 4, 3, 1])], (table, i) =>
      g.gather(table, i),
    ),
  ),
  ScatterAdd: checked(
    example("into one row twice", [ids([4], [4, 0, 2, 0]), normal(4, 3)], (i, rows) =>
      g.scatterAdd(i, rows, 6),
    ),
    example("a batch of rows", [ids([2, 2], [1, 1, 0, 1]), normal(2, 2, 3)], (i, rows) =>
      g.scatterAdd(i, rows, 2),
    ),
  ),
  Dequantize: none(
    ...(
      [
        ["I8", 64, null],
        ["U8", 32, null],
        ["I8", 64, "zero points"],
        ["U8", 32, "zero points"],
        ["I8", 64, "biases"],
        ["U8", 32, "biases"],
      ] as const
    ).map(([dtype, width, shift]) => ({
      ...example(
        `blocks of ${dtype}${shift ? ` with ${shift}` : ""}`,
        Array.from({ length: shift === "biases" ? 2 : 1 }, () => fixed(normal(3, 2))),
        (factors, biases) => {
          const zeros = g.parameter("zeros", [3, width / 32], dtype);
          const shifts = { biases: [biases], "zero points": [zeros] };
          const codes = g.parameter("codes", [3, width], dtype);
          return g.dequantize([codes, factors, ...(shift ? shifts[shift] : [])]);
        },
      ),
      parameters: new Map([
        ["codes", Uint8Array.from({ length: 3 * width }, (_, i) => 89 * i)],
        ["zeros", Uint8Array.from({ length: (3 * width) / 32 }, (_, i) => 37 * i)],
      ]),
    })),
  ),
  CumSum: none(
    example("numbers", [fixed(normal(2, 5))], (x) => g.cumSum(x)),
    example("integers", [ids([2, 3], [1, 1, 0, 1, 0, 1])], (x) => asFloats(g.cumSum(x))),
  ),
};
