// What was given against what is expected: all mistakes at once, each with its place and, where one is near, the word
// that was meant.

import { parse } from "yaml";
import * as z from "zod";
import { invariant, nearest, UserError } from "../core/errors.ts";
import { isRecord, shown } from "../core/json.ts";
import type { Described, Shape, Values } from "./values.ts";
import { describe, describedAt, flagName } from "./values.ts";

export type Tree = Readonly<Record<string, unknown>>;

/** A value at a dotted path, and where it is from, for the error messages. */
export type Given = readonly [path: string, value: unknown, origin: string];

/** What is wrong at a dotted path. */
export type Problem = readonly [path: string, what: string];

/** What the environment gives of a shape's options, under what the command line says. */
export function fromEnvironment(shape: Shape, env: Readonly<Record<string, string | undefined>>) {
  const device = Object.hasOwn(shape, "device") ? env["SSA_DEVICE"] : undefined;
  return device ? [["device", device, "SSA_DEVICE"] as const] : [];
}

/** What the command line gives: by key; undefined means not given. */
export function fromFlags(flags: Tree, originOf = flagName): Given[] {
  return Object.entries(flags)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, value, originOf(key)]);
}

interface Rules<T> {
  /** What is given is laid over it. */
  readonly base?: Tree;
  /** What is wrong between values, each of which is right by itself. */
  readonly conflicts?: (value: T) => readonly Problem[];
  readonly hint?: string;
}

/**
 * The options that come of what is given: later ones win, and strings are read as YAML where no text is expected.
 * Throws one UserError that lists every mistake.
 */
export function readOptions<S extends Shape>(
  shape: S,
  given: readonly Given[],
  { base = {}, conflicts = () => [], hint }: Rules<Values<S>> = {},
): Values<S> {
  const schema = z.strictObject(shape) as z.ZodType as z.ZodType<Values<S>>;
  const words = describe(schema);
  const tree = given.reduce<unknown>((tree, [key, value]) => {
    const path = key.split(".");
    const isText = describedAt(words, path)?.expected === "text";
    return withValue(tree, path, typeof value === "string" && !isText ? scalar(value) : value);
  }, base);
  const { data, error } = schema.safeParse(tree, { reportInput: true });
  const problems = error ? error.issues.flatMap((at) => problemsOf(words, at)) : conflicts(data);
  if (data && problems.length === 0) return data;
  const origins = new Map(given.map(([path, , origin]) => [path, origin]));
  const lines = problems.map(([path, what]) => {
    const origin = origins.get(path) ?? origins.get(path.split(".").slice(0, -1).join("."));
    return `${path}${origin ? ` (${origin})` : ""}: ${what}`;
  });
  throw mistakes(lines, hint);
}

export function mistakes(lines: readonly string[], hint?: string): UserError {
  const list = () => `${lines.length} mistakes:\n${lines.map((line) => `  ${line}`).join("\n")}`;
  return new UserError(lines.length === 1 ? lines[0]! : list(), { hint });
}

/** Without a prototype, so that a key such as `__proto__` is a key like any other, and unknown. */
function withValue(tree: unknown, [part, ...rest]: readonly string[], value: unknown): unknown {
  if (part === undefined) return value;
  const copy: Record<string, unknown> = Object.assign(Object.create(null), isRecord(tree) && tree);
  return Object.assign(copy, { [part]: withValue(copy[part], rest, value) });
}

function scalar(value: string): unknown {
  try {
    return parse(value, { logLevel: "error" });
  } catch {
    return value; // is not what is expected either
  }
}

function problemsOf(words: Described, issue: z.core.$ZodIssue): Problem[] {
  const { path, input } = issue;
  if (issue.code === "unrecognized_keys") {
    const known = Object.keys(describedAt(words, path)?.properties ?? {});
    const at = (key: string) => [...path, key].join(".");
    return issue.keys.map((key) => [at(key), `unknown key${advice(nearest(key, known), at)}`]);
  }
  // An element of a list, or a part of a union, is described by the key that holds it.
  const holders = path.map((_, i) => path.slice(0, path.length - i));
  const holder = holders.find((at) => describedAt(words, at)?.expected);
  invariant(holder, `the options have no wording for ${path.join(".")}`);
  const { expected, choices = [] } = describedAt(words, holder)!;
  const guess = typeof input === "string" ? nearest(input, choices) : undefined;
  const what = `expected ${expected}, found ${shown(input, 60)}${advice(guess)}`;
  return [[holder.join("."), input === undefined ? `missing; expected ${expected}` : what]];
}

const advice = (guess: string | undefined, at = (key: string) => key) =>
  guess === undefined ? "" : `; did you mean ${at(guess)}?`;
