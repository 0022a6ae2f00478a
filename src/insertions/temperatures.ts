// Temperatures of attention as an insertion: τ · z for query, key and value of every layer, as parts.ts has it.

import { sizeOf, type Shape } from "../core/shape.ts";
import { add, cast, concat, expand, mul, reshape, scalar, slice } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type AttentionHooks, type Projection, PROJECTIONS } from "../nn/attention.ts";
import { acrossHeads, tabulate } from "../nn/positions.ts";
import type { Folding, HookContext, Host, Insertion, Values } from "./insertion.ts";
import { changesOf, onlyParts, partOf, PARTS, partsOf, temperatureForms } from "./parts.ts";
import { specFromJson, specToJson, type TemperatureSpec } from "./parts.ts";

const NAME = new RegExp(`\\.ssa\\.(${PROJECTIONS.join("|")})\\.[a-z_]+$`);

export const temperatures = {
  word: "temperatures",
  owns: (tensor: string) => NAME.test(tensor),
  prefix: "",
  baseKeys: { name: "base_model_name_or_path", revision: "base_revision", sha256: "base_sha256" },
  of: (spec: TemperatureSpec): Insertion => ({
    spec,
    toJson: () => specToJson(spec),
    parameters: (host) => new Map(sites(spec, host).flatMap(({ parameters }) => parameters)),
    isConstant: isConstant(spec),
    changes: changesOf(spec),
    describe: (host) => {
      const { numLayers } = host.config;
      const sets = isTied(spec, "layers") ? 1 : numLayers;
      const first = sites(spec, host).filter(({ layer }) => layer === 0);
      return first.map(({ projection, parts, heads, parameters }) => ({
        place: projection,
        form: parts.map((p) => `${p} ${spec[projection][p]}`.replace(" true", "")).join(" + "),
        extent: `${numLayers} layers of ${heads} heads`,
        parameters: sets * parameters.reduce((sum, [, { shape }]) => sum + sizeOf(shape), 0),
      }));
    },
    hooks: (host, context) => ({ scale: scaling(spec, host, context) }),
    fold: (host, values) => fold(spec, host, values),
  }),
  fromJson: (path: string, json: unknown) => temperatures.of(specFromJson(path, json)),
};

/** Parts with a setting are the query's alone. */
const asked = (spec: TemperatureSpec, part: (typeof PARTS)[number]) => {
  return { forms: spec, setting: Number(spec.query[part]) };
};

const isConstant = (spec: TemperatureSpec) =>
  PROJECTIONS.every((one) => partsOf(spec, one).every((part) => partOf(part).constant));

const isTied = ({ tie }: TemperatureSpec, across: "heads" | "layers") =>
  temperatureForms.tie[tie].includes(across);

/** Start of the names of one projection's temperature. */
const prefixOf = (spec: TemperatureSpec, host: Host, layer: number, projection: Projection) =>
  `${host.attentionPrefix(isTied(spec, "layers") ? 0 : layer)}.ssa.${projection}`;

/** Every projection of every layer that has a temperature. */
function sites(spec: TemperatureSpec, host: Host) {
  const { numLayers, numHeads, numKeyValueHeads } = host.config;
  const used = PROJECTIONS.filter((projection) => partsOf(spec, projection).length > 0);
  const inLayer = (layer: number) =>
    used.map((projection) => {
      const heads = projection === "query" ? numHeads : numKeyValueHeads;
      const sizes = { ...host.config, heads: isTied(spec, "heads") ? 1 : heads };
      const parts = partsOf(spec, projection);
      const prefix = prefixOf(spec, host, layer, projection);
      const parameters = parts.flatMap((part) => {
        const own = Object.entries(partOf(part).parameters(sizes, asked(spec, part)));
        return own.map(([word, [shape, initial = () => 0]]) => {
          return [`${prefix}.${word}`, { shape, initial }] as const;
        });
      });
      return { layer, projection, heads, parts, prefix, parameters };
    });
  return Array.from({ length: numLayers }, (_, layer) => inLayer(layer)).flat();
}

type Scale = NonNullable<AttentionHooks["scale"]>;

/** Of projections, along the heads. */
type Join = (of: (projection: Projection) => Tensor) => Tensor;

/**
 * The hook that scales query, key and value; a projection without temperatures passes untouched. Terms of several
 * projections are one of all their heads where the engine wants few nodes.
 */
function scaling(spec: TemperatureSpec, host: Host, enter: HookContext): Scale {
  const { parameter, positions, observe, joinsHeads = false } = enter;
  // By the keys that a window leaves.
  const logs = new Map<number, Tensor>();
  const logOf = (window: number) => {
    const log = (position: number) => Math.log(Math.min(position + 1, window));
    const made = logs.get(window) ?? acrossHeads(tabulate(positions, 1, log));
    logs.set(window, made);
    return made;
  };
  return (projections, { layer, window = Infinity, input: x }) => {
    const input = reshape(cast(x, "F32"), [x.shape[0]!, 1, ...x.shape.slice(1)]);
    const headsOf = (projection: Projection) => Number(projections[projection].shape[1]);
    const perHead = (value: number) => expand(scalar(value), [headsOf("query"), 1, 1]);
    const context = { input, logN: logOf(Infinity), logKeys: logOf(window), perHead };
    /** What `make` gives for all heads of projections, for each by itself or for all together, as one for each. */
    const forEach = (members: readonly Projection[], make: (join: Join) => Tensor) => {
      const groups = joinsHeads && members.length > 0 ? [members] : members.map((one) => [one]);
      return groups.flatMap((group) => {
        const made = make((of) => concat(group.map(of), -3));
        let end = 0;
        return group.map((projection) => {
          const start = end;
          end += headsOf(projection);
          return [projection, slice(made, -3, start, end)] as const;
        });
      });
    };
    // Multiplied in F32, so that the gradient of τ is.
    const projected = (projection: Projection) => projections[projection];
    const wide = (join: Join) => cast(join(projected), "F32");
    const taus = new Map<Projection, Tensor>();
    for (const part of PARTS) {
      const members = PROJECTIONS.filter((projection) => partsOf(spec, projection).includes(part));
      const terms = forEach(members, (join) => {
        const own = (word: string) =>
          join((projection) => {
            const weight = parameter(`${prefixOf(spec, host, layer, projection)}.${word}`);
            const shape = [...weight.shape, 1, 1].slice(0, 3);
            const shaped = reshape(weight, shape);
            if (!isTied(spec, "heads")) return shaped;
            return expand(shaped, [headsOf(projection), ...shape.slice(1)]);
          });
        return partOf(part).term(own, { ...context, ...asked(spec, part), z: wide(join) });
      });
      for (const [projection, term] of terms) {
        const tau = taus.get(projection) ?? scalar(1);
        taus.set(projection, partOf(part).isFactor ? mul(tau, term) : add(tau, term));
      }
    }
    const members = PROJECTIONS.filter((projection) => taus.has(projection));
    for (const projection of members) observe?.(layer, projection, taus.get(projection)!);
    const tau = (projection: Projection) => {
      const [own, { shape }] = [taus.get(projection)!, projections[projection]];
      return joinsHeads ? expand(own, [...shape.slice(0, 3), 1]) : own;
    };
    const scaled = forEach(members, (join) => mul(wide(join), join(tau)));
    const inFormat = scaled.map(([name, x]) => [name, cast(x, projections[name].dtype)]);
    return { ...projections, ...Object.fromEntries(inFormat) };
  };
}

/** Gains of heads, where every part is one, go to the outputs of the projection; a rotary embedding commutes with them. */
function fold(spec: TemperatureSpec, host: Host, values: Values): Folding | null {
  const all = sites(spec, host);
  const folded = all.filter(({ layer, projection }) => host.placeOf(layer, projection));
  if (!isConstant(spec) || folded.length === 0) return null;
  const changes = folded.flatMap(({ layer, projection, heads, parts, prefix }) => {
    const { module, axis, first, stride } = host.placeOf(layer, projection)!;
    const gains = Array.from({ length: heads }, (_, head) => {
      const at = isTied(spec, "heads") ? 0 : head;
      const parameter = (word: string) => values.get(`${prefix}.${word}`)![at]!;
      return parts.reduce((gain, part) => {
        const { constant, isFactor } = partOf(part);
        const term = constant!(parameter, asked(spec, part).setting);
        return isFactor ? gain * term : gain + term;
      }, 1);
    });
    const changeOf = (shape: Shape) => (weight: Float32Array) => {
      // Outputs are the rows of a matrix, or its columns, or the elements of a bias.
      const width = axis === 0 ? Number(shape[1] ?? 1) : 1;
      for (let i = 0; i < weight.length; i++) {
        const output = (Math.floor(i / width) % Number(shape[axis] ?? shape[0])) - first;
        const gain = gains[Math.floor(output / stride)];
        if (gain !== undefined && output % stride < host.config.headDim) weight[i]! *= gain;
      }
    };
    return [`${module}.weight`, `${module}.bias`].flatMap((name) => {
      const shape = host.weights.get(name);
      return shape ? [{ name, change: changeOf(shape) }] : [];
    });
  });
  const off = Object.fromEntries(folded.map(({ projection }) => [projection, onlyParts()]));
  const insertion = temperatures.of({ ...spec, ...off });
  const names = [...insertion.parameters(host).keys()];
  const rest = { insertion, values: new Map(names.map((name) => [name, values.get(name)!])) };
  return { changes, rest: folded.length < all.length ? rest : null };
}
