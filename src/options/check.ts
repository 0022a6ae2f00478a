// What was given against what is expected: all mistakes at once, each with its place and, where one is near, the word
// that was meant.

import { parse } from "yaml";
import * as z from "zod";
import { invariant, nearest, UserError } from "../core/errors.ts";
import { isRecord, shown } from "../core/json.ts";
import { flagName, keysAt, type Shape, type Values, wordingAt } from "./values.ts";

export type Tree = Record<string, unknown>;

/** A value that somebody gave, by its dotted path: where from, for the error messages. */
export type Origins = Map<string, string>;

/** A value at a dotted path, and where it is from. */
export type Given = readonly [path: string, value: unknown, origin: string];

type Environment = Readonly<Record<string, string | undefined>>;

/** Variables that stand for an option, under what the command line says. */
const VARIABLES = { SSA_DEVICE: "device" } as const;

/** What the environment gives of a shape's options. */
export function fromEnvironment(shape: Shape, env: Environment): Given[] {
  return Object.entries(VARIABLES).flatMap(([variable, key]): Given[] =>
    env[variable] && Object.hasOwn(shape, key) ? [[key, env[variable], variable]] : [],
  );
}

/** What the command line gives: by key; undefined means not given. */
export function fromFlags(flags: Readonly<Record<string, unknown>>, originOf = flagName): Given[] {
  return Object.entries(flags)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, value, originOf(key)]);
}

/** The options of a command; later ones win. Throws one UserError that lists every mistake. */
export function readOptions<S extends Shape>(shape: S, given: readonly Given[]): Values<S> {
  const schema = z.strictObject(shape);
  const [tree, origins]: [Tree, Origins] = [emptyTree(), new Map()];
  lay(schema, tree, given, origins);
  const { data, problems } = check(schema, tree, origins);
  if (data && problems.length === 0) return data as Values<S>;
  throw mistakes(problems, "the options have");
}

/** Puts values into a tree; strings are read as YAML where no text is expected. */
export function lay(schema: z.ZodType, tree: Tree, given: readonly Given[], origins: Origins) {
  for (const [path, value, origin] of given) {
    const isText = wordingAt(schema, path.split("."))?.expected === "text";
    put(tree, path, typeof value === "string" && !isText ? scalar(value) : value);
    origins.set(path, origin);
  }
}

function scalar(value: string): unknown {
  try {
    return parse(value, { logLevel: "error" });
  } catch {
    return value; // is not what is expected either
  }
}

/** The values of a tree, and what is wrong with it. */
export function check<T extends z.ZodObject>(schema: T, tree: Tree, origins: Origins) {
  const { data, error } = schema.safeParse(tree, { reportInput: true });
  const problems = (error?.issues ?? []).flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => unknownKey(schema, issue.path, key, origins))
      : [wrongValue(schema, issue.path, issue.input, origins)],
  );
  return { data, problems };
}

/** Without a prototype, so that a key such as `__proto__` is a key like any other, and unknown. */
export function emptyTree(): Tree {
  return Object.create(null) as Tree;
}

/** Where a value is from, in parentheses. */
export function from(path: string, origins: Origins): string {
  const origin = origins.get(path) ?? origins.get(path.split(".").slice(0, -1).join("."));
  return origin === undefined ? "" : ` (${origin})`;
}

export function mistakes(problems: readonly string[], whose: string, hint?: string): UserError {
  const text =
    problems.length === 1
      ? problems[0]!
      : `${whose} ${problems.length} mistakes:\n${problems.map((p) => `  ${p}`).join("\n")}`;
  return new UserError(text, { hint });
}

function put(tree: Tree, path: string, value: unknown): void {
  const parts = path.split(".");
  let at = tree;
  for (const part of parts.slice(0, -1)) {
    const next = at[part];
    at[part] = Object.assign(emptyTree(), isRecord(next) ? next : {});
    at = at[part] as Tree;
  }
  at[parts.at(-1)!] = value;
}

type Path = readonly PropertyKey[];

function unknownKey(schema: z.ZodObject, path: Path, key: string, origins: Origins): string {
  const full = [...path, key].join(".");
  const guess = nearest(key, keysAt(schema, path));
  const advice = guess ? `; did you mean ${[...path, guess].join(".")}?` : "";
  return `${full}${from(full, origins)}: unknown key${advice}`;
}

function wrongValue(schema: z.ZodObject, at: Path, value: unknown, origins: Origins): string {
  // An element of a list, or a part of a union, is described by the key that holds it.
  const path = [...at];
  let wording = wordingAt(schema, path);
  while (!wording?.expected && path.pop() !== undefined) wording = wordingAt(schema, path);
  invariant(wording, `the options have no wording for ${at.join(".")}`);
  const name = path.join(".");
  if (value === undefined) return `${name}: missing; expected ${wording.expected}`;
  const guess = typeof value === "string" && nearest(value, wording.choices ?? []);
  const advice = guess ? `; did you mean ${guess}?` : "";
  return `${name}${from(name, origins)}: expected ${wording.expected}, found ${shown(value, 60)}${advice}`;
}
