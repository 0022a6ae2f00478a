// The op table of the TensorFlow.js engine: one kernel per op, in the operations that every backend (cpu, wasm,
// tensorflow) has. Half precision and 64-bit integers do not exist there; values are float32, int32 or bool.

import type * as tensorflow from "@tensorflow/tfjs-core";
import type { Dtype } from "../../core/dtype.ts";
import { invariant } from "../../core/errors.ts";
import { fixedShape, sameShape } from "../../core/shape.ts";
import { ARITHMETIC, each } from "../../graph/ops.ts";
import type { OpAttributes, Operands, OpType } from "../../graph/ops.ts";
import type { Tensor } from "../../graph/tensor.ts";
import type { Feeds } from "../engine.ts";

/** The functions of tfjs-core, from whichever package brings them. */
export type TensorFlow = typeof tensorflow;
export type TfTensor = tensorflow.Tensor;

export interface KernelContext {
  readonly tf: TensorFlow;
  /** The values of the inputs in this run, or of the parameters. */
  readonly values: Feeds;
}

/** Gives a new tensor, never an operand itself. */
export type Kernel<Op extends OpType> = (
  context: KernelContext,
  inputs: Operands<TfTensor>,
  attributes: OpAttributes[Op],
  tensor: Tensor,
) => TfTensor;

const direct =
  (name: keyof TensorFlow): Kernel<OpType> =>
  ({ tf }, inputs) =>
    (tf[name] as (...operands: readonly TfTensor[]) => TfTensor)(...inputs);
const bound: Kernel<"Input" | "Parameter"> = ({ tf, values }, _, { name, shape }) => {
  invariant(values[name], `no input ${name}`);
  return upload(tf, values[name], fixedShape(shape));
};

export const kernels: { readonly [Op in OpType]: Kernel<Op> } = {
  ...each(["Input", "Parameter"], () => bound),
  ...each([...ARITHMETIC, "Softmax", "Where", "Gather"], (op) =>
    direct(op.toLowerCase() as Lowercase<typeof op>),
  ),
  Constant: ({ tf }, _, { data, shape }) => upload(tf, data, fixedShape(shape)),
  Gelu: ({ tf }, [x], { approximate }) => {
    const inner =
      approximate === "tanh"
        ? tf.tanh(
            tf.mul(tf.add(x, tf.mul(tf.mul(x, tf.square(x)), 0.044715)), Math.sqrt(2 / Math.PI)),
          )
        : tf.erf(tf.mul(x, Math.SQRT1_2));
    return tf.mul(tf.mul(x, 0.5), tf.add(inner, 1));
  },
  Cast: ({ tf }, [x], { to }) => tf.cast(x, tfDtypeOf(to)),
  Dequantize: ({ tf }, [codes, factors, shift], _, { inputs, shape }) => {
    const nibbles = (bytes: typeof codes) => {
      const pairs = tf.stack([tf.mod(bytes, 16), tf.floor(tf.div(bytes, 16))], -1);
      return tf.sub(pairs, tf.mul(tf.cast(tf.greaterEqual(pairs, 8), "float32"), 16)); // two's complement
    };
    /** A side more, of the values of a block. */
    const ofBlocks = (x: typeof codes, i: number) =>
      tf.reshape(inputs[i]!.dtype === "U8" ? nibbles(x) : x, [...factors.shape, -1]);
    const each = tf.expandDims(factors, -1);
    const values = ofBlocks(codes, 0);
    const isBias = inputs[2]?.dtype === "F32";
    const isZero = shift && !isBias;
    const scaled = tf.mul(isZero ? tf.sub(values, ofBlocks(shift, 2)) : values, each);
    const whole = shift && isBias ? tf.add(scaled, tf.expandDims(shift, -1)) : scaled;
    return tf.reshape(whole, fixedShape(shape) as number[]);
  },
  LessOrEqual: direct("lessEqual"),
  And: direct("logicalAnd"),
  // One product of matrices, or one batch of products of equal size: the backends differ in how they broadcast batches of
  // unequal shapes.
  MatMul: ({ tf }, [a, b, ...row], attributes, tensor) => {
    const shape = fixedShape(tensor.shape);
    const batch = shape.slice(0, -2);
    const product =
      b.rank === 2 && (a.rank === 2 || !attributes.transposeA)
        ? multiply(tf, tf.reshape(a, [-1, a.shape.at(-1)!]), b, attributes)
        : multiply(tf, inBatch(tf, a, batch), inBatch(tf, b, batch), attributes);
    const shaped = tf.reshape(product, [...shape]);
    const scaled = attributes.alpha === 1 ? shaped : tf.mul(shaped, attributes.alpha);
    return row.reduce(tf.add, scaled);
  },
  ReduceSum: ({ tf }, [x], { axes }) => tf.sum(x, [...axes], true),
  ReduceMean: ({ tf }, [x], { axes }) => tf.mean(x, [...axes], true),
  LogSumExp: ({ tf }, [x]) => {
    const largest = tf.max(x, -1, true);
    return tf.add(tf.log(tf.sum(tf.exp(tf.sub(x, largest)), -1, true)), largest);
  },
  LayerNorm: ({ tf }, [x, weight, bias], { epsilon }) => {
    const from = centered(tf, x);
    return tf.add(tf.mul(tf.mul(from, invRms(tf, from, epsilon)), weight), bias);
  },
  LayerNormMean: ({ tf }, [x]) => tf.mean(x, -1, true),
  LayerNormInvStd: ({ tf }, [x], { epsilon }) => invRms(tf, centered(tf, x), epsilon),
  RmsNorm: ({ tf }, [x, weight], { epsilon }) => tf.mul(tf.mul(x, invRms(tf, x, epsilon)), weight),
  RmsNormInvStd: ({ tf }, [x], { epsilon }) => invRms(tf, x, epsilon),
  // [x1 cos - x2 sin, x2 cos + x1 sin, rest]
  Rotary: ({ tf }, [x, cos, sin]) => {
    const [half, width, axis] = [cos.shape.at(-1)!, x.shape.at(-1)!, x.rank - 1];
    const part = (start: number, end: number) => slice(tf, x, axis, start, end);
    const [x1, x2] = [part(0, half), part(half, 2 * half)];
    const first = tf.sub(tf.mul(x1, cos), tf.mul(x2, sin));
    const second = tf.add(tf.mul(x2, cos), tf.mul(x1, sin));
    const rest = width > 2 * half ? [part(2 * half, width)] : [];
    return tf.concat([first, second, ...rest], axis);
  },
  Reshape: ({ tf }, [x], { shape }) => tf.reshape(x, [...fixedShape(shape)]),
  Transpose: ({ tf }, [x], { permutation }) => tf.transpose(x, [...permutation]),
  Expand: ({ tf }, [x], { shape }) => tf.broadcastTo(x, [...fixedShape(shape)]),
  Slice: ({ tf }, [x], { axis, start, end }) => slice(tf, x, axis, start, end),
  Pad: ({ tf }, [x], { axis, before, after }) => {
    const sides = x.shape.map((_, i): [number, number] => (i === axis ? [before, after] : [0, 0]));
    return tf.pad(x, sides);
  },
  Concat: ({ tf }, inputs, { axis }) => tf.concat([...inputs], axis),
  ScatterAdd: ({ tf }, [indices, updates], _, { shape }) => {
    const [rows, ...row] = fixedShape(shape);
    const flat = tf.reshape(updates, [indices.size, ...row]);
    return tf.scatterND(tf.reshape(indices, [indices.size, 1]), flat, [rows!, ...row]);
  },
  CumSum: ({ tf }, [x]) => tf.cumsum(x, x.rank - 1),
};

/** Where the engine keeps a number format of a graph; a half is a float32 as soon as it is loaded. */
const tfDtypeOf = (dtype: Dtype) =>
  dtype === "BOOL" ? "bool" : dtype.includes("F") ? "float32" : "int32";

/** Values as a tensor; integers must fit in 32 bits, as token ids and positions do. */
function upload(tf: TensorFlow, data: Float32Array | BigInt64Array, shape: readonly number[]) {
  if (data instanceof Float32Array) return tf.tensor(data, [...shape], "float32");
  const integers = Int32Array.from(data, Number);
  const lost = data.find((value, i) => BigInt(integers[i]!) !== value);
  invariant(lost === undefined, `${lost} does not fit in an int32`);
  return tf.tensor(integers, [...shape], "int32");
}

const centered = (tf: TensorFlow, x: TfTensor) => tf.sub(x, tf.mean(x, -1, true));

/** 1 / √(mean(x²) + ε) over the last axis. */
function invRms(tf: TensorFlow, x: TfTensor, epsilon: number): TfTensor {
  return tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), epsilon));
}

function slice(tf: TensorFlow, x: TfTensor, axis: number, start: number, end: number): TfTensor {
  const begin = x.shape.map((_, i) => (i === axis ? start : 0));
  const size = x.shape.map((dim, i) => (i === axis ? end - start : dim));
  return tf.slice(x, begin, size);
}

/** Elements of a matrix from which the wasm backend's fast routine is worth copies of the operands. */
const LARGE = 4096;

/** The product of two matrices, or of two batches of as many. */
function multiply(tf: TensorFlow, a: TfTensor, b: TfTensor, how: OpAttributes["MatMul"]) {
  const { transposeA, transposeB } = how;
  const batch = a.rank === 2 ? 1 : a.shape[0];
  if (tf.getBackend() !== "wasm" || Math.max(a.size, b.size) / batch < LARGE)
    return tf.matMul(a, b, transposeA, transposeB);
  // Its one fast routine multiplies two matrices as they lie, about ten times as fast as the others.
  const left = transposeA ? swapLast(tf, a) : a;
  const right = transposeB ? swapLast(tf, b) : b;
  if (a.rank === 2) return tf.matMul(left, right);
  const matrices = tf.unstack(right);
  return tf.stack(tf.unstack(left).map((matrix, i) => tf.matMul(matrix, matrices[i]!)));
}

function swapLast(tf: TensorFlow, x: TfTensor): TfTensor {
  return tf.transpose(x, x.rank === 2 ? [1, 0] : [0, 2, 1]);
}

/** [.., m, n] broadcast to a batch, as [size of the batch, m, n]. */
function inBatch(tf: TensorFlow, x: TfTensor, batch: readonly number[]): TfTensor {
  const matrix = x.shape.slice(-2);
  const full = [...batch, ...matrix];
  const broadcast = sameShape(x.shape, full) ? x : tf.broadcastTo(x, full);
  return tf.reshape(broadcast, [-1, ...matrix] as [number, number, number]);
}
