// Kinds of option values: what is accepted, and the words for it in help and messages; and what was given against that:
// all mistakes at once, each with its place and, where one is near, the word that was meant.

import { parse } from "yaml";
import * as z from "zod";
import { type Precision, precisionNamed, precisions } from "../core/dtype.ts";
import { invariant, nearest, orElse, UserError } from "../core/errors.ts";
import { isRecord, type JsonObject, shown } from "../core/json.ts";
import { DEVICE_NAMES, isDeviceName } from "../engines/devices.ts";

/** What the help and the error messages say of a value: metadata of its schema. */
interface Wording {
  readonly description: string;
  /** Completes "expected …". */
  readonly expected: string;
  /** The placeholder after the flag, in brackets where it may be left out; "" for a switch, undefined: no flag. */
  readonly value?: string;
  readonly choices?: readonly string[];
  /** May be given several times. */
  readonly isList?: boolean;
  /** A flag without a value, and what it stands for. */
  readonly short?: readonly [flag: string, value: string];
  /** Another name of the flag. */
  readonly alias?: string;
}

export const worded = <T extends z.ZodType>(
  kind: T,
  expected: string,
  value?: string,
  choices?: readonly string[],
): T => kind.meta({ expected, value, choices });

export const text = (value: string, least = 1) => worded(z.string().min(least), "text", value);
export const texts = (value: string) =>
  z.array(z.string()).meta({ expected: "text", value, isList: true });
export const oneOf = <const T extends readonly string[]>(choices: T, value: string) =>
  worded(z.enum(choices), listed(choices), value, choices);
/** One of them, or several with commas between. */
export const someOf = <const T extends readonly string[]>(choices: T, value: string) => {
  const expected = `${listed(choices)}, or several with commas between`;
  return worded(listOf(z.enum(choices)), expected, value, choices);
};
/** A YAML list, or `a,b` on the command line for the same. */
export const listOf = <T extends z.ZodType>(one: T) =>
  z.preprocess(
    (given) => (typeof given === "string" ? given.split(",").map((word) => word.trim()) : given),
    z.array(one).min(1),
  );
export const wholeNumber = (least: number) =>
  worded(z.int().min(least), `a whole number of at least ${least}`, "n");
/** Different ones, comma-separated or as a list. */
export const wholeNumbers = (least: number, most: number, expected: string) => {
  const read = (given: unknown) =>
    /^[\d, ]+$/.test(String(given)) ? String(given).split(",").map(Number) : given;
  const kind = z.preprocess(read, z.array(z.int().min(least).max(most)).min(1));
  const isDifferent = (list: readonly number[]) => new Set(list).size === list.length;
  return worded(kind.refine(isDifferent), `different whole numbers ${expected}`, "n,…");
};
export const wholeNumberOr = <T extends string>(word: T, least: number) => {
  const kind = z.union([z.literal(word), z.int().min(least)]);
  return worded(kind, `${word} or a whole number of at least ${least}`, "n");
};
export const above0 = () => worded(z.number().positive(), "a number above 0", "number");
export const atLeast0 = () => worded(z.number().nonnegative(), "a number of at least 0", "number");
export const within = (least: number, most: number, value: string) =>
  worded(z.number().min(least).max(most), `a number from ${least} to ${most}`, value);
export const decayRate = () =>
  worded(z.number().min(0).lt(1), "a number from 0 to below 1", "number");
export const share = () => worded(z.number().gt(0).lt(1), "a number between 0 and 1", "share");

/** `0.5%`, or 0.5 for the same. */
export const percentage = () => {
  const number = (given: unknown) => {
    const digits = /^(\d+(?:\.\d+)?) ?%$/.exec(String(given))?.[1];
    return digits === undefined ? given : Number(digits);
  };
  const kind = z.preprocess(number, z.number().nonnegative());
  return worded(kind, "a percentage such as 0.5%", "percent");
};

/** Which of several jobs, `2/8`. */
export const shard = () => {
  const read = (given: unknown) => {
    const [, index, count] = /^(\d{1,6})\/(\d{1,6})$/.exec(String(given))?.map(Number) ?? [];
    return index && count && index <= count ? { index, count } : given;
  };
  const kind = z.preprocess(read, z.object({ index: z.int(), count: z.int() }));
  return worded(kind, "i/n with i from 1 to n", "i/n");
};

/** Bytes, as `2GB` or `500MB`. */
export const fileSize = () => {
  const units: Readonly<Record<string, number>> = { K: 1e3, M: 1e6, G: 1e9 };
  const bytes = (given: unknown) => {
    const [, number, unit] = /^(\d+(?:\.\d+)?) ?([KMG])B$/i.exec(String(given)) ?? [];
    return number && unit ? Math.floor(Number(number) * units[unit.toUpperCase()]!) : String(given);
  };
  const kind = z.preprocess(bytes, z.int().positive());
  return worded(kind, "a size such as 2GB or 500MB", "size");
};

/** Number formats by any of their customary names: `f16` is `fp16`; and others that a place has. */
export const numberFormat = <T extends string = never>(
  others: readonly T[] = [],
): z.ZodType<Precision | T> => {
  const names = [...(Object.keys(precisions) as Precision[]), ...others];
  const named = (given: unknown) => precisionNamed(String(given)) ?? given;
  return worded(z.preprocess(named, z.enum(names)), listed(names), "type", names);
};

/** The same, or left to the program. */
export const autoOr = <T extends z.ZodType>(kind: T) => {
  const { expected, value, choices } = kind.meta() as Omit<Wording, "description">;
  const either = z.union([z.literal("auto"), kind]);
  const words = choices && ["auto", ...choices];
  return worded(either, `auto${choices ? "," : " or"} ${expected}`, value, words);
};

export const device = () => {
  const names = ["auto", ...DEVICE_NAMES];
  const expected = `${listed(names)}, also with a number (cuda:1), or several of a kind (cuda:0,cuda:1)`;
  return worded(z.string().refine(isDeviceName), expected, "device", names);
};

export const needed = <T extends z.ZodType>(kind: T, description: string): T =>
  kind.meta({ description });
export const maybe = <T extends z.ZodType>(kind: T, description: string): z.ZodOptional<T> =>
  kind.optional().meta({ description });
export const preset = <T extends z.ZodType>(
  kind: T,
  initial: NonNullable<z.output<T>>,
  description: string,
): z.ZodDefault<T> => kind.default(initial as never).meta({ description });
/** Named by no default: null. */
export const orNull = <T extends z.ZodType>(kind: T, description: string) => {
  const words = { ...kind.meta(), description };
  return kind.nullable().default(null).meta(words);
};
export const flag = (description: string) =>
  preset(worded(z.boolean(), "true or false", ""), false, description);

export function listed(words: readonly string[]): string {
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

export const shared = {
  model: needed(text("model"), "folder of a model, run or adapter, id[@revision] or name"),
  adapter: maybe(text("folder"), "adapter to put on the model: temperatures, or LoRA of PEFT"),
  device: preset(device(), "auto", "where to compute (on several: cuda:0,cuda:1)"),
  threads: preset(wholeNumberOr("auto", 1), "auto", "processor threads; auto: the physical cores"),
  rankTimeout: preset(wholeNumber(2), 30, "seconds after which a silent rank of MPI is lost"),
  logRanks: flag("let ranks other than the first tell what they do"),
  refresh: flag("ask the hub what a cached branch or tag is by now"),
  json: flag("print one JSON document"),
} as const;

export type Shape = z.ZodRawShape;
export type Values<S extends Shape> = z.output<z.ZodObject<S>>;

export interface Option<Key extends string = string> extends Wording {
  readonly key: Key;
  /** Undefined where there is none. */
  readonly initial: unknown;
  readonly isNeeded: boolean;
  /** The heading under which the help has it. */
  readonly group?: string | undefined;
  /** As commander wants it, e.g. `--learning-rate <number>`; undefined for keys that only `--set` reaches. */
  readonly flag: string | undefined;
}

/** Every option in order: what help, flags, error messages and the reference are made of. */
export function optionsOf<S extends Shape>(shape: S): readonly Option<keyof S & string>[] {
  return Object.entries(describe(z.strictObject(shape)).properties!).map(([key, wording]) => {
    const { data: initial, success } = (shape[key] as z.ZodType).safeParse(undefined);
    const placeholder = wording.value?.replace(/^[^[].*$/, "<$&>");
    const flag = placeholder === undefined ? undefined : `${flagName(key)} ${placeholder}`.trim();
    return { ...(wording as Wording), key, initial, isNeeded: !success, flag };
  });
}

/** A key's words in a flag: `learningRate` is `--learning-rate`. */
export function flagName(key: string): string {
  return `--${key.replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)}`;
}

/** The wordings of a value and of what is inside it. */
type Described = Partial<Wording> & { readonly properties?: Readonly<Record<string, Described>> };

/** JSON Schema keeps the metadata, and takes the wrappers (a default, what may be left out) away. */
const describe = (schema: z.ZodType): Described =>
  z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as Described;

/** The description at a path, such as `["temperatures", "query"]`; undefined for unknown paths. */
function describedAt(root: Described, path: readonly PropertyKey[]): Described | undefined {
  const inside = ({ properties = {} }: Described, part: PropertyKey) =>
    Object.hasOwn(properties, part) ? properties[part as string] : undefined;
  return path.reduce<Described | undefined>((at, part) => at && inside(at, part), root);
}

/** A value at a dotted path, where it is from, for the error messages, and whether its strings are no YAML any more. */
export type Given = readonly [path: string, value: unknown, origin: string, isRead?: boolean];

/** What is wrong at a dotted path. */
export type Problem = readonly [path: string, what: string];

/** Options that the environment may give. */
const VARIABLES = { device: "SSA_DEVICE", deviceMemory: "SSA_DEVICE_MEMORY" } as const;

/** What the environment gives of a shape's options, under what the command line says. */
export const fromEnvironment = (shape: Shape, env: Readonly<Record<string, string | undefined>>) =>
  Object.entries(VARIABLES).flatMap(([key, name]): Given[] =>
    Object.hasOwn(shape, key) && env[name] ? [[key, env[name], name]] : [],
  );

/** What the command line gives: by key; undefined means not given. */
export const fromFlags = (flags: JsonObject, originOf = flagName): Given[] =>
  Object.entries(flags)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, value, originOf(key)]);

interface Rules<T> {
  /** What is given is laid over it. */
  readonly base?: JsonObject;
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
  const tree = given.reduce<unknown>((tree, [key, value, , isRead = false]) => {
    const path = key.split(".");
    const isText = /^text\b/.test(describedAt(words, path)?.expected ?? "");
    const isYaml = typeof value === "string" && !isText && !isRead;
    return withValue(tree, path, isYaml ? scalar(value) : value);
  }, base);
  const { data, error } = schema.safeParse(tree, { reportInput: true });
  const problems = error ? error.issues.flatMap((at) => problemsOf(words, at)) : conflicts(data);
  if (data && problems.length === 0) return data;
  const origins = new Map(given.map(([path, , origin]) => [path, origin]));
  const lines = problems.map(([path, what]) => {
    const [parent, inside] = [path.split(".").slice(0, -1).join("."), `${path}.`];
    const below = given.find(([path]) => path.startsWith(inside))?.[2];
    const origin = origins.get(path) ?? origins.get(parent) ?? below;
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

// What is no YAML is not what is expected either.
const scalar = (value: string) =>
  orElse(() => parse(value, { logLevel: "error" }) as unknown, value);

function problemsOf(words: Described, issue: z.core.$ZodIssue): Problem[] {
  const { path, input } = issue;
  if (issue.code === "unrecognized_keys") {
    const { properties, choices = [] } = describedAt(words, path) ?? {};
    const known = properties ? Object.keys(properties) : choices;
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
