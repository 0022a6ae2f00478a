// τ of every part and form: the value against its formula in plain numbers, the gradients against central differences.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { sizeOf } from "../../src/core/shape.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import type { Host } from "../../src/insertions/insertion.ts";
import { FEATURES, PARTS, POSITION_FORMS } from "../../src/insertions/parts.ts";
import { onlyParts, type TemperatureSpec } from "../../src/insertions/parts.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import { fixedPositions } from "../../src/nn/positions.ts";
import { caseGraph } from "../graph/case-graph.ts";
import { compareWithDifferences } from "../graph/differences.ts";
import { allClose } from "../helpers.ts";

const [B, N, T, H] = [2, 2, 3, 4] as const;
const host: Host = {
  config: { numLayers: 1, numHeads: N, numKeyValueHeads: N, headDim: H },
  weights: new Map(),
  linears: new Map(),
  layout: "FD",
  attentionPrefix: () => "attn",
  placeOf: () => null,
};

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

/** The formulas of the paper's forms, of numbers: tanh's GELU, and the identity. */
const formulas: Readonly<Record<string, (x: number) => number>> = {
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  tanh: Math.tanh,
  linear: (x) => x,
};

/** τ of a head for a token's vector at 1-based position n. */
function tauOf(
  spec: TemperatureSpec,
  of: (word: string) => readonly number[],
  z: number[],
  n: number,
) {
  const { token, position, constant } = spec.query;
  let tau = 1;
  if (token) {
    const phi = z.map((x) => formulas[spec.feature]!(x));
    const w = of("weight");
    tau += Math.tanh(phi.reduce((sum, x, i) => sum + w[i]! * x, of("bias")[0]!));
  }
  if (position) tau += formulas[spec.position]!(of("position")[0]!) * Math.log(n);
  if (constant) tau += Math.tanh(of("constant")[0]!);
  return tau;
}

for (const parts of [...PARTS.map((part) => [part]), PARTS])
  for (const feature of parts.includes("token") ? FEATURES : FEATURES.slice(0, 1))
    for (const position of parts.includes("position") ? POSITION_FORMS : POSITION_FORMS.slice(0, 1))
      test(`${parts.join(" + ")}, ${feature}, ${position}: value and gradients`, async () => {
        const spec: TemperatureSpec = {
          feature,
          position,
          query: onlyParts(...parts),
          key: onlyParts(),
          value: onlyParts(),
        };
        const insertion = temperatures.of(spec);
        const parameters = [...insertion.parameters(host)];
        const random = createRandom(3);
        const operands = [
          [B, N, T, H],
          ...parameters.map(([, { shape }]) => shape.map(Number)),
        ].map((shape) => {
          const values = Float32Array.from({ length: sizeOf(shape) }, () => random.normal() / 2);
          return { shape, values, hasGradient: true };
        });
        const build = (z: Tensor, ...given: Tensor[]) => {
          const byName = new Map(parameters.map(([name], i) => [name, given[i]!]));
          const parameter = (name: string) => byName.get(name)!;
          const hooks = insertion.hooks(host, { parameter, positions: fixedPositions(T) });
          const scaled = hooks.scale!({ query: z, key: z, value: z }, 0);
          assert.equal(scaled.key, z);
          return scaled.query;
        };
        const example = { name: "", operands, build };
        const actual = await compareWithDifferences(engine, example, caseGraph(example));

        const z = operands[0]!.values;
        const expected = z.map((x, i) => {
          const start = i - (i % H);
          const [n, head] = [(Math.floor(i / H) % T) + 1, Math.floor(i / (H * T)) % N];
          const of = (word: string) => {
            const index = parameters.findIndex(([name]) => name === `attn.ssa.query.${word}`);
            const { values } = operands[index + 1]!;
            const width = values.length / N;
            return [...values.subarray(head * width, (head + 1) * width)];
          };
          return x * tauOf(spec, of, [...z.subarray(start, start + H)], n);
        });
        allClose(actual, expected, { atol: 1e-6, rtol: 1e-5 });
      });
