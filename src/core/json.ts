// What JSON holds, as types.

export type JsonObject = Readonly<Record<string, unknown>>;

/** Whether a JSON value is an object, neither null nor a list. */
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A JSON value for a message: cut where it is long, left out where it is nested deeper than can be written. */
export function shown(value: unknown, most = 200): string {
  try {
    const text = JSON.stringify(value) ?? "(absent)";
    return text.length > most ? `${text.slice(0, most)}…` : text;
  } catch {
    return "a value nested too deep to show";
  }
}
