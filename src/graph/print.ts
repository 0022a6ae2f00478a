// A graph as text, one line per node, for tests, `ssa inspect` and error messages.

import { formatShape } from "../core/shape.ts";
import { isOp, type Outputs, type Tensor, topologicalOrder } from "./tensor.ts";

/** `%3 = MatMul(%1, %2) {"transposeB":true} : F32[2, 3]`, then one line per output. */
export function printGraph(outputs: Outputs): string {
  const ids = new Map<Tensor, number>();
  const lines = topologicalOrder(Object.values(outputs)).map((tensor) => {
    ids.set(tensor, ids.size);
    const inputs = tensor.inputs.map((x) => `%${ids.get(x)}`).join(", ");
    const attributes = isOp(tensor, "Constant") ? preview(tensor) : attributesOf(tensor);
    return `%${ids.get(tensor)} = ${tensor.op}(${inputs})${attributes} : ${tensor.dtype}${formatShape(tensor.shape)}`;
  });
  for (const [name, tensor] of Object.entries(outputs)) lines.push(`${name} = %${ids.get(tensor)}`);
  return lines.join("\n");
}

function attributesOf(tensor: Tensor): string {
  const { shape: _, dtype: __, ...rest } = tensor.attributes as Record<string, unknown>;
  return Object.keys(rest).length === 0 ? "" : ` ${JSON.stringify(rest)}`;
}

function preview({ attributes: { data } }: Tensor<"Constant">): string {
  const values = [...data.subarray(0, 4)].join(", ");
  return ` {${data.length > 4 ? `${values}, ..` : values}}`;
}
