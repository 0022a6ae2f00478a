// Which temperatures are inserted, as stated in ssa_config.json and in recipes (Zhang et al., NeurIPS 2024).

import { UserError } from "../core/errors.ts";

export const PROJECTIONS = ["query", "key", "value"] as const;
export type Projection = (typeof PROJECTIONS)[number];

/** The two parts of a temperature; each may be absent. */
export const PARTS = ["token", "position"] as const;
export type TemperatureParts = Readonly<Record<(typeof PARTS)[number], boolean>>;

export const FEATURES = ["gelu", "linear"] as const;
export const POSITION_FORMS = ["tanh", "linear"] as const;

export interface TemperatureSpec extends Readonly<Record<Projection, TemperatureParts>> {
  /** φ of the token-aware part. */
  readonly feature: (typeof FEATURES)[number];
  /** p of the position-aware part. */
  readonly position: (typeof POSITION_FORMS)[number];
}

export const FORMAT_VERSION = 1;

/** The content of ssa_config.json, without an adapter's `base_*` fields. */
export function specToJson(spec: TemperatureSpec): Readonly<Record<string, unknown>> {
  const { feature, position, query, key, value } = spec;
  return { format_version: FORMAT_VERSION, feature, position, query, key, value };
}

/** Reads ssa_config.json; every field is required and checked. */
export function specFromJson(path: string, json: unknown): TemperatureSpec {
  const record = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
  const choice = <Value>(key: string, allowed: readonly Value[]): Value => {
    if (allowed.includes(record[key] as Value)) return record[key] as Value;
    throw new UserError(
      `${path}: "${key}" must be ${allowed.join(" or ")}, found ${JSON.stringify(record[key])}`,
    );
  };
  const parts = (key: Projection): TemperatureParts => {
    const { token, position } = (record[key] ?? {}) as Record<string, unknown>;
    if (typeof token === "boolean" && typeof position === "boolean") return { token, position };
    throw new UserError(
      `${path}: "${key}" must be {"token": true|false, "position": true|false}, found ${JSON.stringify(record[key])}`,
    );
  };
  choice("format_version", [FORMAT_VERSION]);
  return {
    feature: choice("feature", FEATURES),
    position: choice("position", POSITION_FORMS),
    query: parts("query"),
    key: parts("key"),
    value: parts("value"),
  };
}
