// τ of every part and form: the value against its formula in plain numbers, the gradients against central differences.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createRandom } from "../../src/core/random.ts";
import { sizeOf } from "../../src/core/shape.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { input } from "../../src/graph/build.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { type Host, withInitialValues } from "../../src/insertions/insertion.ts";
import {
  DEFAULT_TEMPERATURES,
  formsOf,
  onlyParts,
  PARTS,
  type TemperatureSpec,
} from "../../src/insertions/parts.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import { fixedPositions } from "../../src/nn/positions.ts";
import { caseGraph } from "../graph/case-graph.ts";
import { compareWithDifferences } from "../graph/differences.ts";
import { allClose } from "../helpers.ts";

const [B, N, T, H, D] = [2, 2, 3, 4, 5] as const;
const host: Host = {
  config: { numLayers: 1, numHeads: N, numKeyValueHeads: N, headDim: H, hiddenSize: D },
  weights: new Map(),
  linears: new Map(),
  layout: "FD",
  attentionPrefix: () => "attn",
  placeOf: () => null,
};

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

/** The formulas of the forms, of numbers: tanh's GELU, and the identity. */
const formulas: Readonly<Record<string, (x: number) => number>> = {
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  tanh: Math.tanh,
  linear: (x) => x,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  "exp-exp": (x) => Math.exp(-Math.exp(x)),
};

/** τ of a head for a token's vector z, made of x, at 1-based position n, whose query sees m keys. */
function tauOf(
  spec: TemperatureSpec,
  of: (word: string) => readonly number[],
  { x, z, n, m }: { x: number[]; z: number[]; n: number; m: number },
) {
  const { token, position, constant, ssmax, ssmaxBias, logn, yarn } = spec.query;
  let tau = 1;
  if (token) {
    const own = (h: number) =>
      x.reduce((sum, value, d) => sum + value * of("hidden")[d * H + h]!, 0);
    const phi = z.map((value, h) =>
      formulas[spec.feature]!(spec.hidden === "own" ? own(h) : value),
    );
    const w = of("weight");
    tau += Math.tanh(phi.reduce((sum, x, i) => sum + w[i]! * x, of("bias")[0]!));
  }
  if (position) tau += formulas[spec.position]!(of("position")[0]!) * Math.log(n);
  if (constant) tau += Math.tanh(of("constant")[0]!);
  // Those that multiply the logits.
  if (ssmax) tau *= of("ssmax")[0]! * Math.log(m);
  if (ssmaxBias) tau *= of("ssmax_scale")[0]! * Math.log(m) + of("ssmax_bias")[0]!;
  if (logn) tau *= Math.log(m) / Math.log(Number(logn));
  if (yarn) tau *= (1 + 0.1 * Math.log(Number(yarn))) * (1 + 0.1 * Math.log(Number(yarn)));
  return tau;
}

const numbers: Readonly<Record<string, number>> = { ssmax: 0.43, logn: 16, yarn: 4 };
const chosen = (parts: typeof PARTS) => ({
  ...onlyParts(),
  ...Object.fromEntries(parts.map((part) => [part, numbers[part] ?? true])),
});
const all = { ...DEFAULT_TEMPERATURES, query: chosen(PARTS), value: onlyParts() };
const alone = (part: (typeof PARTS)[number]) => ({ ...all, query: chosen([part]) });
const cases: readonly (readonly [string, TemperatureSpec, { window?: number; joins?: true }?])[] = [
  ...PARTS.map((part) => [part, alone(part)] as const),
  ...formsOf("feature").map(
    (feature) => [`token, ${feature}`, { ...alone("token"), feature }] as const,
  ),
  ...formsOf("position").map(
    (position) => [`position, ${position}`, { ...alone("position"), position }] as const,
  ),
  ["token, a layer of its own", { ...alone("token"), hidden: "own" }],
  ["all parts", all],
  ["all parts, one set for all heads", { ...all, hidden: "own", tie: "heads" }],
  ["all parts, heads joined", { ...all, tie: "all" }, { joins: true }],
  ["all parts in a window of two keys", all, { window: 2 }],
];

for (const [name, spec, { window = Infinity, joins: joinsHeads = false } = {}] of cases)
  test(`${name}: value and gradients`, async () => {
    const insertion = temperatures.of(spec);
    const parameters = [...insertion.parameters(host)];
    const random = createRandom(3);
    const isOwn = spec.hidden === "own";
    const operands = [
      [B, N, T, H],
      ...parameters.map(([, { shape }]) => shape.map(Number)),
      ...(isOwn ? [[B, T, D]] : []),
    ].map((shape) => {
      const values = Float32Array.from({ length: sizeOf(shape) }, () => random.normal() / 2);
      return { shape, values, hasGradient: true };
    });
    const build = (z: Tensor, ...given: Tensor[]) => {
      const x = isOwn ? given.at(-1)! : input("x", [B, T, D], "F32");
      const byName = new Map(parameters.map(([name], i) => [name, given[i]!]));
      const parameter = (name: string) => byName.get(name)!;
      const context = { parameter, positions: fixedPositions(T), joinsHeads };
      const hooks = insertion.hooks(host, context);
      const place = { layer: 0, window, input: x };
      const scaled = hooks.scale!({ query: z, key: z, value: z }, place);
      assert.equal(scaled.key, z);
      return scaled.query;
    };
    const example = { name: "", operands, build };
    const actual = await compareWithDifferences(engine, example, caseGraph(example));

    const [z, x] = [operands[0]!.values, operands.at(-1)!.values];
    const expected = z.map((value, i) => {
      const [start, at] = [i - (i % H), Math.floor(i / H) % T];
      const [head, row] = [Math.floor(i / (H * T)) % N, Math.floor(i / (H * T * N))];
      const of = (word: string) => {
        const index = parameters.findIndex(([name]) => name === `attn.ssa.query.${word}`);
        const { values, shape } = operands[index + 1]!;
        const width = values.length / shape[0]!;
        const own = shape[0] === 1 ? 0 : head;
        return [...values.subarray(own * width, (own + 1) * width)];
      };
      const from = (row * T + at) * D;
      const token = {
        z: [...z.subarray(start, start + H)],
        x: [...x.subarray(from, from + D)],
        n: at + 1,
        m: Math.min(at + 1, window),
      };
      return value * tauOf(spec, of, token);
    });
    allClose(actual, expected, { atol: 1e-6, rtol: 1e-5 });
  });

test("what a part starts from, and whether that is the base", () => {
  const start = (spec: TemperatureSpec) => {
    const insertion = temperatures.of(spec);
    const { values } = withInitialValues(insertion, host, createRandom(0));
    return [
      Object.fromEntries([...values].map(([n, v]) => [n.slice(15), [...v]])),
      insertion.changes,
    ];
  };
  const float = (value: number) => Math.fround(value);
  assert.deepEqual(start(alone("ssmax")), [{ ssmax: [float(0.43), float(0.43)] }, ["ssmax"]]);
  assert.deepEqual(start(alone("ssmaxBias")), [{ ssmax_scale: [0, 0], ssmax_bias: [1, 1] }, []]);
  assert.deepEqual(start({ ...alone("position"), position: "sigmoid" }), [
    { position: [0, 0] },
    ["position"],
  ]);
  // The published code has one for each layer.
  assert.deepEqual(start({ ...alone("position"), position: "exp-exp", tie: "heads" }), [
    { position: [1.5] },
    ["position"],
  ]);
  assert.deepEqual(start(alone("logn")), [{}, ["logn"]]);
  assert.deepEqual(start(alone("yarn")), [{}, ["yarn"]]);
  assert.deepEqual(start(alone("position")), [{ position: [0, 0] }, []]);
});
