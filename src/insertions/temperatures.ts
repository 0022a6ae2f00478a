// Temperatures of attention as an insertion: τ · z for query, key and value of every layer, as parts.ts has it.

import { sizeOf } from "../core/shape.ts";
import { add, cast, mul, reshape, scalar } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Projection, Projections } from "../nn/attention.ts";
import { acrossHeads, tabulate } from "../nn/positions.ts";
import type {
  Description,
  Folding,
  HookContext,
  Host,
  InsertionKind,
  Values,
} from "./insertion.ts";
import { partOf, PROJECTIONS, PARTS, temperatureForms } from "./parts.ts";
import { onlyParts, partsOf, specFromJson, specToJson, type TemperatureSpec } from "./spec.ts";

const WORDS = PARTS.flatMap((part) => Object.keys(partOf(part).parameters(1, 1)));
const NAME = new RegExp(`\\.ssa\\.(${PROJECTIONS.join("|")})\\.(${WORDS.join("|")})$`);

export const temperatures: InsertionKind<TemperatureSpec> = {
  owns: (tensor) => NAME.test(tensor),
  of: (spec) => ({
    spec,
    toJson: () => specToJson(spec),
    shapes: (host) => new Map(parametersOf(spec, host).map(({ name, shape }) => [name, shape])),
    initial: (host) =>
      new Map(
        parametersOf(spec, host).map(({ name, shape, initial }) => [
          name,
          new Float32Array(sizeOf(shape)).fill(initial),
        ]),
      ),
    describe: (host) => describe(spec, host),
    hooks: (host, context) => ({ scale: scaling(spec, host, context) }),
    fold: (host, values) => fold(spec, host, values),
  }),
  fromJson: (path, json) => temperatures.of(specFromJson(path, json)),
};

/** The start of a temperature's names. */
const prefixOf = (host: Host, layer: number, projection: Projection) =>
  `${host.attentionPrefix(layer)}.ssa.${projection}`;

/** Every layer with every projection. */
function* sites({ config }: Host) {
  for (let layer = 0; layer < config.numLayers; layer++)
    for (const projection of PROJECTIONS) {
      const heads = projection === "query" ? config.numHeads : config.numKeyValueHeads;
      yield { layer, projection, heads };
    }
}

function parametersOf(spec: TemperatureSpec, host: Host) {
  return [...sites(host)].flatMap(({ layer, projection, heads }) =>
    partsOf(spec, projection).flatMap((part) => {
      const { parameters, initial } = partOf(part);
      return Object.entries(parameters(heads, host.config.headDim)).map(([word, shape]) => {
        return { name: `${prefixOf(host, layer, projection)}.${word}`, shape, initial };
      });
    }),
  );
}

function describe(spec: TemperatureSpec, host: Host): Description[] {
  const { numLayers } = host.config;
  const used = [...sites(host)].filter(
    ({ layer, projection }) => layer === 0 && partsOf(spec, projection).length > 0,
  );
  return used.map(({ projection, heads }) => {
    const own = parametersOf(spec, host).filter(({ name }) => name.includes(`.ssa.${projection}.`));
    return {
      place: projection,
      form: partsOf(spec, projection).join(" + "),
      extent: `${numLayers} layers of ${heads} heads`,
      parameters: own.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    };
  });
}

/** The hook that scales query, key and value; a projection without temperatures passes untouched. */
function scaling(
  spec: TemperatureSpec,
  host: Host,
  { parameter, positions, observe }: HookContext,
) {
  const logN = acrossHeads(tabulate(positions, 1, (position) => Math.log(position + 1)));
  const feature = temperatureForms.feature[spec.feature];
  const position = temperatureForms.position[spec.position];
  return (projections: Projections, layer: number) => {
    const scaled = PROJECTIONS.map((projection): [Projection, Tensor] => {
      const z_BNTH = projections[projection];
      const parts = partsOf(spec, projection);
      if (parts.length === 0) return [projection, z_BNTH];
      const z = cast(z_BNTH, "F32"); // multiplied in F32, so that the gradient of τ is
      const perHead = (word: string) => {
        const weight = parameter(`${prefixOf(host, layer, projection)}.${word}`);
        return reshape(weight, [...weight.shape, 1, 1].slice(0, 3));
      };
      const tau = parts
        .map((part) => partOf(part).term(perHead, { z, logN, feature, position }))
        .reduce<Tensor>(add, scalar(1));
      observe?.(layer, projection, tau);
      return [projection, cast(mul(z, tau), z_BNTH.dtype)];
    });
    return Object.fromEntries(scaled) as unknown as Projections;
  };
}

/** Gains of heads, where every part is one, go to the outputs that they scale; a rotary embedding commutes with them. */
function fold(spec: TemperatureSpec, host: Host, values: Values): Folding | null {
  const folded = PROJECTIONS.filter(
    (projection) => partsOf(spec, projection).length > 0 && host.placeOf(0, projection),
  );
  const parts = PROJECTIONS.flatMap((projection) => partsOf(spec, projection));
  if (folded.length === 0 || parts.some((part) => !partOf(part).constant)) return null;

  const factors = new Map<string, { readonly axis: number; readonly ofOutput: number[] }>();
  for (const { layer, projection, heads } of sites(host)) {
    if (!folded.includes(projection)) continue;
    const { module, axis, first, stride } = host.placeOf(layer, projection)!;
    const outputs = Number(host.weights.get(`${module}.weight`)![axis]);
    const { ofOutput } = factors.get(module) ?? { ofOutput: Array<number>(outputs).fill(1) };
    factors.set(module, { axis, ofOutput });
    for (let head = 0; head < heads; head++) {
      const parameter = (word: string) =>
        values.get(`${prefixOf(host, layer, projection)}.${word}`)![head]!;
      const gain = partsOf(spec, projection).reduce(
        (sum, part) => sum + partOf(part).constant!(parameter),
        1,
      );
      const start = first + head * stride;
      ofOutput.fill(gain, start, start + host.config.headDim);
    }
  }
  const changes = [...factors].flatMap(([module, { axis, ofOutput }]) =>
    [`${module}.weight`, `${module}.bias`].flatMap((name) => {
      const shape = host.weights.get(name);
      if (!shape) return [];
      // Elements in a row that belong to the same output.
      const run = axis === 0 ? Number(shape[1] ?? 1) : 1;
      const change = (weight: Float32Array) =>
        weight.forEach((w, i) => {
          weight[i] = w * ofOutput[Math.floor(i / run) % ofOutput.length]!;
        });
      return [[name, change] as const];
    }),
  );
  const off = Object.fromEntries(folded.map((projection) => [projection, onlyParts()]));
  const insertion = temperatures.of({ ...spec, ...off });
  const names = [...insertion.shapes(host).keys()];
  const rest = { insertion, values: new Map(names.map((name) => [name, values.get(name)!])) };
  return { changes: new Map(changes), rest: names.length > 0 ? rest : null };
}
