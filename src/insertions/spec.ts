// Which temperatures are inserted, as stated in recipes and in ssa_config.json.

import { UserError } from "../core/errors.ts";
import { shown } from "../core/json.ts";
import { type Projection, PROJECTIONS } from "../nn/attention.ts";
import {
  FEATURES,
  partOf,
  PARTS,
  POSITION_FORMS,
  type TemperatureForms,
  type TemperaturePart,
} from "./parts.ts";

/** Which parts a projection has. */
export type PartChoice = Readonly<Record<TemperaturePart, boolean>>;

export interface TemperatureSpec
  extends TemperatureForms, Readonly<Record<Projection, PartChoice>> {}

/** These parts and no others. */
export const onlyParts = (...on: readonly TemperaturePart[]) =>
  Object.fromEntries(PARTS.map((part) => [part, on.includes(part)])) as PartChoice;

export const DEFAULT_TEMPERATURES: TemperatureSpec = {
  feature: "gelu",
  position: "tanh",
  query: onlyParts("token", "position"),
  key: onlyParts(),
  value: onlyParts("token"),
};

export const partsOf = (spec: TemperatureSpec, projection: Projection) =>
  PARTS.filter((part) => spec[projection][part]);

const VERSIONS = [1, 2] as const;

const partsBy = (version: number) => PARTS.filter((part) => partOf(part).version <= version);

/** In the oldest version that can say it; without an adapter's `base_*` fields. */
export function specToJson(spec: TemperatureSpec): Readonly<Record<string, unknown>> {
  const used = PROJECTIONS.flatMap((projection) => partsOf(spec, projection));
  const version = Math.max(1, ...used.map((part) => partOf(part).version));
  const choice = (projection: Projection) =>
    Object.fromEntries(partsBy(version).map((part) => [part, spec[projection][part]]));
  const { feature, position } = spec;
  const projections = PROJECTIONS.map((projection) => [projection, choice(projection)]);
  return { format_version: version, feature, position, ...Object.fromEntries(projections) };
}

/** Reads ssa_config.json, whose path is for messages; every field is required and checked. */
export function specFromJson(path: string, json: unknown): TemperatureSpec {
  const record = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
  const choice = <Value>(key: string, allowed: readonly Value[]): Value => {
    if (allowed.includes(record[key] as Value)) return record[key] as Value;
    throw wrong(key, allowed.join(" or "));
  };
  const wrong = (key: string, expected: string) =>
    new UserError(`${path}: "${key}" must be ${expected}, found ${shown(record[key])}`);
  const known = partsBy(choice("format_version", VERSIONS));
  const parts = (key: Projection): PartChoice => {
    const found = (record[key] ?? {}) as Record<string, unknown>;
    if (known.every((part) => typeof found[part] === "boolean"))
      return onlyParts(...known.filter((part) => found[part]));
    throw wrong(key, `{${known.map((part) => `"${part}": true|false`).join(", ")}}`);
  };
  return {
    feature: choice("feature", FEATURES),
    position: choice("position", POSITION_FORMS),
    query: parts("query"),
    key: parts("key"),
    value: parts("value"),
  };
}
