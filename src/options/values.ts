// Kinds of option values: what is accepted, and the words for it in help and messages.

import * as z from "zod";
import { type Precision, precisionNamed, precisions } from "../core/dtype.ts";
import { DEVICE_NAMES, isDeviceName } from "../engines/devices.ts";

/** What the error messages and the help say of a value. */
export interface Wording {
  /** Completes "expected …". */
  readonly expected: string;
  /** The placeholder after the flag, in brackets where it may be left out; "" for a switch, undefined: no flag. */
  readonly value?: string;
  readonly choices?: readonly string[];
  /** May be given several times. */
  readonly isList?: boolean;
}

const worded = <T extends z.ZodType>(kind: T, expected: string, value?: string): T =>
  kind.meta({ expected, ...(value !== undefined && { value }) });

export const text = (value: string, least = 1) => worded(z.string().min(least), "text", value);
export const texts = (value: string) =>
  z.array(z.string()).meta({ expected: "text", value, isList: true });
export const oneOf = <const T extends readonly string[]>(choices: T, value: string) =>
  z.enum(choices).meta({ expected: listed(choices), value, choices });
export const wholeNumber = (least: number, value = "n") =>
  worded(z.int().min(least), `a whole number of at least ${least}`, value);
export const wholeNumberOr = <T extends string>(word: T, least: number) =>
  worded(
    z.union([z.literal(word), z.int().min(least)]),
    `${word} or a whole number of at least ${least}`,
    "n",
  );
export const above0 = () => worded(z.number().positive(), "a number above 0", "number");
export const atLeast0 = () => worded(z.number().nonnegative(), "a number of at least 0", "number");
export const within = (least: number, most: number, value: string) =>
  worded(z.number().min(least).max(most), `a number from ${least} to ${most}`, value);
export const decayRate = () =>
  worded(z.number().min(0).lt(1), "a number from 0 to below 1", "number");
export const share = () => worded(z.number().gt(0).lt(1), "a number between 0 and 1", "share");
export const onOff = () => worded(z.boolean(), "true or false");

/** `0.5%`, or 0.5 for the same. */
export const percentage = () => {
  const number = (given: unknown) => {
    const digits = /^(\d+(?:\.\d+)?) ?%$/.exec(String(given))?.[1];
    return digits === undefined ? given : Number(digits);
  };
  const kind = z.preprocess(number, z.number().nonnegative());
  return worded(kind, "a percentage such as 0.5%", "percent");
};

/** Number formats by any of their customary names: `f16` is `fp16`. */
export const numberFormat = () => {
  const names = Object.keys(precisions) as Precision[];
  const named = (given: unknown) => precisionNamed(String(given)) ?? given;
  return z
    .preprocess(named, z.enum(names))
    .meta({ expected: listed(names), value: "type", choices: names });
};

const devices = ["auto", ...DEVICE_NAMES];
export const device = () =>
  z
    .string()
    .refine(isDeviceName)
    .meta({
      expected: `${listed(devices)}, also with a number (cuda:1)`,
      value: "device",
      choices: devices,
    });

/** An option that must be named. */
export const needed = <T extends z.ZodType>(kind: T, description: string): T =>
  kind.meta({ description });
/** An option that may be left out. */
export const maybe = <T extends z.ZodType>(kind: T, description: string): z.ZodOptional<T> =>
  kind.optional().meta({ description });
/** An option with a default. */
export const preset = <T extends z.ZodType>(
  kind: T,
  initial: NonNullable<z.output<T>>,
  description: string,
): z.ZodDefault<T> => kind.default(initial as never).meta({ description });
/** A flag without a value. */
export const flag = (description: string) =>
  preset(worded(z.boolean(), "true or false", ""), false, description);

/** One of these for each key. */
export const forEach = <K extends string, T>(keys: readonly K[], make: (key: K) => T) =>
  Object.fromEntries(keys.map((key) => [key, make(key)])) as Record<K, T>;

export function listed(words: readonly string[]): string {
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

export type Shape = z.ZodRawShape;
/** The values of options. */
export type Values<S extends Shape> = z.output<z.ZodObject<S>>;

export interface Option<Key extends string = string> extends Wording {
  readonly key: Key;
  readonly description: string;
  /** Undefined where there is none. */
  readonly initial: unknown;
  readonly isNeeded: boolean;
  /** As commander wants it, e.g. `--learning-rate <number>`; undefined for keys that only `--set` reaches. */
  readonly flag: string | undefined;
}

/** Every option in order: what help, flags, error messages and the reference are made of. */
export function optionsOf<S extends Shape>(shape: S): readonly Option<keyof S & string>[] {
  return Object.entries(shape).map(([key, kind]) => {
    const schema = kind as z.ZodType;
    const wording = wordingOf(schema);
    const { value } = wording;
    const placeholder = value === undefined || /^\[|^$/.test(value) ? value : `<${value}>`;
    return {
      ...wording,
      key,
      initial: schema instanceof z.ZodDefault ? schema.def.defaultValue : undefined,
      isNeeded: !schema.safeParse(undefined).success,
      flag: placeholder === undefined ? undefined : `${flagName(key)} ${placeholder}`.trim(),
    };
  });
}

/** A key's words in a flag: `learningRate` is `--learning-rate`. */
export function flagName(key: string): string {
  return `--${key.replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)}`;
}

/** What describes the value at a path, such as `["temperatures", "query"]`; undefined for unknown paths. */
function schemaAt(root: z.ZodType, path: readonly PropertyKey[]): z.ZodType | undefined {
  let schema = root;
  for (const part of path) {
    const { shape } = unwrapped(schema);
    if (!shape || !Object.hasOwn(shape, part)) return undefined;
    schema = shape[part as string] as z.ZodType;
  }
  return schema;
}

export function wordingAt(root: z.ZodType, path: readonly PropertyKey[]): Wording | undefined {
  const schema = schemaAt(root, path);
  return schema && wordingOf(schema);
}

/** The keys of the object at a path. */
export function keysAt(root: z.ZodType, path: readonly PropertyKey[]): readonly string[] {
  const schema = schemaAt(root, path);
  return Object.keys((schema && unwrapped(schema).shape) ?? {});
}

const unwrapped = (schema: z.ZodType): { readonly shape?: Shape } => {
  const wrapped = inside(schema);
  return wrapped ? unwrapped(wrapped) : (schema as { readonly shape?: Shape });
};

// Wrappers (a default, null allowed) carry the description; what they wrap carries the expectation.
function wordingOf(schema: z.ZodType): Wording & { readonly description: string } {
  const wrapped = inside(schema);
  return {
    ...(wrapped && wordingOf(wrapped)),
    ...schema.meta(),
  } as Wording & { readonly description: string };
}

function inside(schema: z.ZodType): z.ZodType | undefined {
  const isWrapper =
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodOptional;
  return isWrapper ? (schema.unwrap() as z.ZodType) : undefined;
}
