// What JSON holds, as types.

import { messageOf, orElse, UserError, type UserErrorOptions } from "./errors.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

/** Whether a JSON value is an object, neither null nor a list. */
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Whether two values of JSON are equal, in whatever order their keys are. */
export function sameJson(a: unknown, b: unknown): boolean {
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return a === b;
  const [one, other] = [Object.entries(a), new Map<string, unknown>(Object.entries(b))];
  const isSame = one.length === other.size && Array.isArray(a) === Array.isArray(b);
  return isSame && one.every(([key, x]) => other.has(key) && sameJson(x, other.get(key)));
}

/** The object that a text is; `where` it stands is for messages. */
export function parseObject(text: string, where: string, options: UserErrorOptions = {}) {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new UserError(`${where} is not JSON: ${messageOf(cause)}`, { ...options, cause });
  }
  if (isRecord(json)) return json;
  throw new UserError(`${where} must hold a JSON object`, options);
}

/** A JSON value for a message: cut where it is long, left out where it is nested deeper than can be written. */
export function shown(value: unknown, most = 200): string {
  const deep = "a value nested too deep to show";
  const isInfinite = typeof value === "number" && !Number.isFinite(value); // JSON has null for it
  const text = isInfinite
    ? String(value)
    : (orElse(() => JSON.stringify(value), deep) ?? "(absent)");
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
