// ONNX messages (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), assembled node by node.

import type { Dtype } from "../../core/dtype.ts";
import type { LateBytes, Message } from "../../core/protobuf.ts";
import type { Shape } from "../../core/shape.ts";

/** Opset 21 is the newest that onnxruntime-web runs as well. */
const OPSET = 21;
const IR_VERSION = 10;

/** TensorProto.DataType */
export const ONNX_TYPES: Readonly<Record<Dtype | "I4", number>> = {
  F32: 1,
  U8: 2,
  I8: 3,
  I16: 5,
  I32: 6,
  I64: 7,
  BOOL: 9,
  F16: 10,
  F64: 11,
  BF16: 16,
  I4: 22,
};

/** The name of a value, or integers that become a constant. */
export type Operand = string | readonly number[];
type Attribute = number | { readonly float: number } | string | readonly number[];

export type Attributes = Readonly<Record<string, Attribute>>;

/** Little-endian: here, once the model is written, or in a file beside it, by its name there. */
export type WeightBytes =
  | Uint8Array
  | LateBytes
  | { readonly location: string; readonly offset: number; readonly byteLength: number };

interface OnnxNode extends Readonly<Record<"inputs" | "outputs", readonly string[]>> {
  readonly op: string;
  readonly attributes: Attributes;
}

/** Collects nodes and initializers in order; `message` gives the model. */
export class OnnxModel {
  readonly #nodes: OnnxNode[] = [];
  readonly #aliases = new Map<string, string>();
  readonly #initializers: Message[] = [];
  readonly #inputs: Message[] = [];
  readonly #outputs: Message[] = [];
  readonly #constants = new Map<string, string>();
  #count = 0;

  /** A value name that nothing else uses. */
  name(hint: string): string {
    return `${hint}_${this.#count++}`;
  }

  /** Appends a node and gives the names of its outputs. A domain is written before the op: `com.microsoft.Gelu`. */
  node(
    op: string,
    operands: readonly Operand[],
    outputs: readonly string[],
    attributes: Attributes = {},
  ): readonly string[] {
    const inputs = operands.map((x) => (typeof x === "string" ? x : this.integers(x, [x.length])));
    this.#nodes.push({ op, inputs, outputs, attributes });
    return outputs;
  }

  /** Gives what a node computes another name, wherever it is used. */
  rename(from: string, to: string): void {
    this.#aliases.set(from, to);
  }

  initializer(
    name: string,
    dtype: keyof typeof ONNX_TYPES,
    shape: readonly number[],
    data: WeightBytes,
  ): string {
    const tensor = { 1: shape, 2: ONNX_TYPES[dtype], 8: name };
    if (!("location" in data)) this.#initializers.push({ ...tensor, 9: data });
    else {
      const { location, offset, byteLength: length } = data;
      const entries = Object.entries({ location, offset, length });
      const place = entries.map(([key, value]) => ({ 1: key, 2: String(value) }));
      this.#initializers.push({ ...tensor, 13: place, 14: 1 }); // data_location = EXTERNAL
    }
    return name;
  }

  /** Small constants are shared by all that ask for the same. */
  constant(dtype: Dtype, shape: readonly number[], data: Uint8Array): string {
    const values = data.length <= 512 ? data.join() : `large ${this.#count}`;
    const key = `${dtype} [${shape.join()}] ${values}`;
    const name =
      this.#constants.get(key) ?? this.initializer(this.name("constant"), dtype, shape, data);
    this.#constants.set(key, name);
    return name;
  }

  integers(values: Iterable<number | bigint>, shape: readonly number[]): string {
    const data = BigInt64Array.from(values as Iterable<bigint>, BigInt);
    return this.constant("I64", shape, new Uint8Array(data.buffer));
  }

  input(name: string, dtype: Dtype, shape: Shape): void {
    this.#inputs.push(valueInfo(name, dtype, shape));
  }

  output(name: string, dtype: Dtype, shape: Shape): void {
    this.#outputs.push(valueInfo(name, dtype, shape));
  }

  message(): Message {
    const named = (name: string) => this.#aliases.get(name) ?? name;
    const nodes = this.#nodes.map(({ op, inputs, outputs, attributes }, index) => {
      const dot = op.lastIndexOf(".");
      const type = op.slice(dot + 1);
      return {
        1: inputs.map(named),
        2: outputs.map(named),
        3: `${type}_${index}`,
        4: type,
        5: Object.entries(attributes).map(([name, value]) => ({ 1: name, ...attribute(value) })),
        7: dot > 0 ? op.slice(0, dot) : [],
      };
    });
    return {
      1: IR_VERSION,
      2: "ssa",
      7: { 1: nodes, 2: "main", 5: this.#initializers, 11: this.#inputs, 12: this.#outputs },
      8: [
        { 1: "", 2: OPSET },
        { 1: "com.microsoft", 2: 1 },
      ],
    };
  }
}

function valueInfo(name: string, dtype: Dtype, shape: Shape): Message {
  const dims = shape.map((dim) => (typeof dim === "number" ? { 1: dim } : { 2: dim }));
  return { 1: name, 2: { 1: { 1: ONNX_TYPES[dtype], 2: { 1: dims } } } };
}

/** AttributeProto but for its name; types FLOAT 1, INT 2, STRING 3, INTS 7. */
function attribute(value: Attribute): Message {
  if (typeof value === "number") return { 3: value, 20: 2 };
  if (typeof value === "string") return { 4: value, 20: 3 };
  return "float" in value ? { 2: Float32Array.of(value.float), 20: 1 } : { 8: value, 20: 7 };
}
