// Inserts temperatures into every layer of a model: their names and shapes, and the attention hook that applies them.

import type { Shape } from "../core/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { AttentionHooks, Projections } from "../nn/attention.ts";
import type { Positions } from "../nn/positions.ts";
import { type Projection, PROJECTIONS, type TemperatureSpec } from "./spec.ts";
import { applyTemperature, logPositions, temperature } from "./temperature.ts";

/** What insertion needs to know of a model. */
export interface Host {
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly attentionPrefix: (layer: number) => string;
}

/** Names and shapes of all temperature parameters, layer by layer: `<attention prefix>.ssa.query.weight`, ... */
export function temperatureShapes(spec: TemperatureSpec, host: Host): Map<string, Shape> {
  const shapes = new Map<string, Shape>();
  for (let layer = 0; layer < host.numLayers; layer++)
    for (const projection of PROJECTIONS) {
      const heads = projection === "query" ? host.numHeads : host.numKeyValueHeads;
      const { token, position } = spec[projection];
      const add = (name: string, shape: Shape) =>
        shapes.set(parameterName(host, layer, projection, name), shape);
      if (token) add("weight", [heads, host.headDim]);
      if (token) add("bias", [heads]);
      if (position) add("position", [heads]);
    }
  return shapes;
}

/** Called with τ of each layer and projection as it is built. */
export type TemperatureObserver = (layer: number, projection: Projection, tau: Tensor) => void;

/** The hook that rescales query, key and value; a projection without temperatures passes untouched. */
export function temperatureHook(
  spec: TemperatureSpec,
  host: Host,
  parameterOf: (name: string) => Tensor,
  positions: Positions,
  observe?: TemperatureObserver,
): NonNullable<AttentionHooks["scale"]> {
  const logN = logPositions(positions);
  return (projections, layer) => {
    const scaled = PROJECTIONS.map((projection) => {
      const z = projections[projection];
      const { token, position } = spec[projection];
      if (!token && !position) return [projection, z];
      const parameter = (name: string) => parameterOf(parameterName(host, layer, projection, name));
      const tau = temperature(
        z,
        {
          ...(token && { weight: parameter("weight"), bias: parameter("bias") }),
          ...(position && { position: parameter("position") }),
        },
        spec,
        logN,
      );
      observe?.(layer, projection, tau);
      return [projection, applyTemperature(z, tau)];
    });
    return Object.fromEntries(scaled) as Projections;
  };
}

/** Whether a tensor's name is a temperature's. */
export function isTemperatureName(name: string): boolean {
  return /\.ssa\.(query|key|value)\.(weight|bias|position)$/.test(name);
}

function parameterName(host: Host, layer: number, projection: Projection, name: string): string {
  return `${host.attentionPrefix(layer)}.ssa.${projection}.${name}`;
}
