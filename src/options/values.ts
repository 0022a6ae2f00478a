// Kinds of option values: what is accepted, and the words for it in help and messages.

import * as z from "zod";
import { type Precision, precisionNamed, precisions } from "../core/dtype.ts";
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
}

const worded = <T extends z.ZodType>(
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
export const wholeNumber = (least: number) =>
  worded(z.int().min(least), `a whole number of at least ${least}`, "n");
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
  return worded(z.preprocess(named, z.enum(names)), listed(names), "type", names);
};

export const device = () => {
  const names = ["auto", ...DEVICE_NAMES];
  const expected = `${listed(names)}, also with a number (cuda:1)`;
  return worded(z.string().refine(isDeviceName), expected, "device", names);
};

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
/** An option whose default names nothing: null. */
export const orNull = <T extends z.ZodType>(of: T, description: string) =>
  of
    .nullable()
    .default(null)
    .meta({ ...of.meta(), description });
/** A flag without a value. */
export const flag = (description: string) =>
  preset(worded(z.boolean(), "true or false", ""), false, description);

export function listed(words: readonly string[]): string {
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/** Options that several commands have. */
export const shared = {
  model: needed(text("model"), "folder of a model, run or adapter, id[@revision] or name"),
  adapter: maybe(text("folder"), "temperatures to put on the model"),
  data: needed(text("data"), "file, folder, pattern, id[:config][@split] or name"),
  textColumn: orNull(
    text("name"),
    "column that holds the text (default: text, or the only one in parquet)",
  ),
  nullRows: preset(
    oneOf(["error", "skip"], "what"),
    "error",
    "what to do with rows without a text",
  ),
  device: preset(device(), "auto", "where to compute"),
  threads: preset(wholeNumberOr("auto", 1), "auto", "processor threads; auto: the physical cores"),
  refresh: flag("ask the hub what a cached branch or tag is by now"),
  json: flag("print one JSON document"),
} as const;

export type Shape = z.ZodRawShape;
/** The values of options. */
export type Values<S extends Shape> = z.output<z.ZodObject<S>>;

export interface Option<Key extends string = string> extends Wording {
  readonly key: Key;
  /** Undefined where there is none. */
  readonly initial: unknown;
  readonly isNeeded: boolean;
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
export interface Described extends Partial<Wording> {
  readonly properties?: Readonly<Record<string, Described>>;
}

/** JSON Schema keeps the metadata, and takes the wrappers (a default, what may be left out) away. */
export function describe(schema: z.ZodType): Described {
  return z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as Described;
}

/** The description at a path, such as `["temperatures", "query"]`; undefined for unknown paths. */
export function describedAt(root: Described, path: readonly PropertyKey[]): Described | undefined {
  const inside = ({ properties = {} }: Described, part: PropertyKey) =>
    Object.hasOwn(properties, part) ? properties[part as string] : undefined;
  return path.reduce<Described | undefined>((at, part) => at && inside(at, part), root);
}
