// ONNX messages (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), assembled node by node.

import type { Dtype } from "../../core/dtype.ts";
import type { Shape } from "../../core/shape.ts";
import * as pb from "./protobuf.ts";

/** Opset 21 is the newest that onnxruntime-web runs as well. */
const OPSET = 21;
const IR_VERSION = 10;
const MICROSOFT = "com.microsoft";

/** TensorProto.DataType */
export const ONNX_TYPES: Readonly<Record<Dtype, number>> = {
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
};

/** The name of a value, or integers that become a constant. */
export type Operand = string | readonly number[];
type Attribute = number | { readonly float: number } | string | readonly number[];

export type Attributes = Readonly<Record<string, Attribute>>;

/** Little-endian: here, or in a file beside the model, by its name there. */
export type WeightBytes =
  | Uint8Array
  | { readonly location: string; readonly offset: number; readonly byteLength: number };

interface OnnxNode {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Attributes;
}

/** Collects nodes and initializers in order; `encode` gives the model's bytes. */
export class OnnxModel {
  readonly #nodes: OnnxNode[] = [];
  readonly #aliases = new Map<string, string>();
  readonly #initializers: pb.Field[] = [];
  readonly #inputs: pb.Field[] = [];
  readonly #outputs: pb.Field[] = [];
  readonly #integers = new Map<string, string>();
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
    const inputs = operands.map((x) => (typeof x === "string" ? x : this.integers(x)));
    this.#nodes.push({ op, inputs, outputs, attributes });
    return outputs;
  }

  /** Gives what a node computes another name, wherever it is used. */
  rename(from: string, to: string): void {
    this.#aliases.set(from, to);
  }

  initializer(name: string, dtype: Dtype, shape: readonly number[], data: WeightBytes): string {
    const fields = [...shape.map((dim) => pb.int(1, dim)), pb.int(2, ONNX_TYPES[dtype])];
    fields.push(pb.text(8, name));
    if (data instanceof Uint8Array) fields.push(pb.bytes(9, data));
    else {
      const { location, offset, byteLength: length } = data;
      for (const [key, value] of Object.entries({ location, offset, length }))
        fields.push(pb.message(13, [pb.text(1, key), pb.text(2, String(value))]));
      fields.push(pb.int(14, 1)); // data_location = EXTERNAL
    }
    this.#initializers.push(pb.message(5, fields));
    return name;
  }

  /** A small int64 constant, shared by all that ask for the same values. */
  integers(values: readonly number[], shape: readonly number[] = [values.length]): string {
    const key = `${shape.length}:${values.join()}`;
    let name = this.#integers.get(key);
    if (!name) {
      const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
      name = this.initializer(this.name("integers"), "I64", shape, data);
      this.#integers.set(key, name);
    }
    return name;
  }

  input(name: string, dtype: Dtype, shape: Shape): void {
    this.#inputs.push(pb.message(11, valueInfo(name, dtype, shape)));
  }

  output(name: string, dtype: Dtype, shape: Shape): void {
    this.#outputs.push(pb.message(12, valueInfo(name, dtype, shape)));
  }

  #encodeNode({ op, inputs, outputs, attributes }: OnnxNode, index: number): pb.Field {
    const named = (name: string) => this.#aliases.get(name) ?? name;
    const dot = op.lastIndexOf(".");
    const fields = [
      ...inputs.map((name) => pb.text(1, named(name))),
      ...outputs.map((name) => pb.text(2, named(name))),
      pb.text(3, `${op.slice(dot + 1)}_${index}`),
      pb.text(4, op.slice(dot + 1)),
      ...Object.entries(attributes).map(([name, value]) => pb.message(5, attribute(name, value))),
    ];
    if (dot > 0) fields.push(pb.text(7, op.slice(0, dot)));
    return pb.message(1, fields);
  }

  encode(): Uint8Array {
    return pb.encode([
      pb.int(1, IR_VERSION),
      pb.text(2, "ssa"),
      pb.message(7, [
        ...this.#nodes.map((node, i) => this.#encodeNode(node, i)),
        pb.text(2, "main"),
        ...this.#initializers,
        ...this.#inputs,
        ...this.#outputs,
      ]),
      opset("", OPSET),
      opset(MICROSOFT, 1),
    ]);
  }
}

const opset = (domain: string, version: number) =>
  pb.message(8, [pb.text(1, domain), pb.int(2, version)]);

function valueInfo(name: string, dtype: Dtype, shape: Shape): pb.Field[] {
  const dims = shape.map((dim) =>
    pb.message(1, [typeof dim === "number" ? pb.int(1, dim) : pb.text(2, dim)]),
  );
  const type = [pb.int(1, ONNX_TYPES[dtype]), pb.message(2, dims)];
  return [pb.text(1, name), pb.message(2, [pb.message(1, type)])];
}

/** AttributeProto; types FLOAT 1, INT 2, STRING 3, INTS 7. */
function attribute(name: string, value: Attribute): pb.Field[] {
  const named = pb.text(1, name);
  if (typeof value === "number") return [named, pb.int(3, value), pb.int(20, 2)];
  if (typeof value === "string") return [named, pb.text(4, value), pb.int(20, 3)];
  if ("float" in value) return [named, pb.float(2, value.float), pb.int(20, 1)];
  return [named, ...value.map((v) => pb.int(8, v)), pb.int(20, 7)];
}
