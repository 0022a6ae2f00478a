// Two mutators for all kinds: one of bytes, which knows no format, and one of JSON values, which knows what readers
// forget. All choices come from the random numbers given, so that a case is repeated by its seed and index.

import type { Random } from "../../src/core/random.ts";

export const pick = <T>(random: Random, choices: readonly T[]): T =>
  choices[Math.floor(random.uniform() * choices.length)]!;
/** A whole number from 0 to below `end`. */
export const below = (random: Random, end: number): number => Math.floor(random.uniform() * end);
export const happens = (random: Random, share: number): boolean => random.uniform() < share;

const interestingBytes = [0, 1, 0x0a, 0x1b, 0x20, 0x22, 0x2d, 0x30, 0x5c, 0x7b, 0x7f, 0x80, 0xff];
const interestingNumbers = [0n, 1n, 7n, 8n, 127n, 255n, 256n, 65_535n, 65_536n, 2n ** 31n - 1n]
  .concat([2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n])
  .flatMap((value) => [value, value ^ 1n]);
const snippets = [
  "\0",
  "\x1b[2J",
  "\x9b31m",
  "\n",
  "{",
  "}",
  "[]",
  '"',
  ",",
  ":",
  "-",
  "1e999",
  "null",
]
  .concat([
    "../",
    "\\u0000",
    "\\",
    "'",
    "%",
    "&a *a ",
    "<<: ",
    "!!js/function ",
    "\ufeff",
    "\u202e",
  ])
  .map((text) => Buffer.from(text));

type ByteChange = (bytes: Buffer, random: Random) => Buffer;

/** A stretch, mostly short. */
function rangeIn(bytes: Buffer, random: Random): [start: number, end: number] {
  const start = below(random, bytes.length + 1);
  const most = pick(random, [1, 4, 16, 300, bytes.length]);
  return [start, Math.min(bytes.length, start + 1 + below(random, most))];
}

const splice = (bytes: Buffer, start: number, end: number, put: Uint8Array) =>
  Buffer.concat([bytes.subarray(0, start), put, bytes.subarray(end)]);

const byteChanges: readonly ByteChange[] = [
  function flipBit(bytes, random) {
    if (bytes.length > 0) bytes[below(random, bytes.length)]! ^= 1 << below(random, 8);
    return bytes;
  },
  function setByte(bytes, random) {
    const value = happens(random, 0.5) ? pick(random, interestingBytes) : below(random, 256);
    if (bytes.length > 0) bytes[below(random, bytes.length)] = value;
    return bytes;
  },
  function setNumber(bytes, random) {
    const size = pick(random, [2, 4, 8]);
    const number = Buffer.alloc(8);
    number.writeBigUInt64LE(pick(random, interestingNumbers));
    // Headers are at the beginning or at the end.
    const end = Math.max(1, bytes.length - size + 1);
    const near = below(random, Math.min(end, 64));
    const at = pick(random, [near, Math.max(0, end - 1 - near), below(random, end)]);
    return splice(bytes, at, at + size, number.subarray(0, size)).subarray(0, bytes.length);
  },
  (bytes, random) => splice(bytes, ...rangeIn(bytes, random), Buffer.alloc(0)),
  (bytes, random) => bytes.subarray(0, below(random, bytes.length + 1)),
  function repeat(bytes, random) {
    const [start, end] = rangeIn(bytes, random);
    return splice(bytes, end, end, bytes.subarray(start, end));
  },
  function insert(bytes, random) {
    const at = below(random, bytes.length + 1);
    return splice(bytes, at, at, pick(random, snippets));
  },
  function zero(bytes, random) {
    return bytes.fill(0, ...rangeIn(bytes, random));
  },
  function move(bytes, random) {
    const [start, end] = rangeIn(bytes, random);
    const at = below(random, bytes.length - (end - start) + 1);
    const rest = splice(bytes, start, end, Buffer.alloc(0));
    return splice(rest, at, at, bytes.subarray(start, end));
  },
  (bytes, random) => Buffer.concat([bytes, pick(random, snippets)]),
];

/** A changed copy; mostly one change, so that a deep check is reached before another one refuses. */
export function mutateBytes(bytes: Uint8Array, random: Random): Buffer {
  let changed: Buffer = Buffer.from(bytes);
  do changed = Buffer.from(pick(random, byteChanges)(changed, random));
  while (happens(random, 0.3));
  return changed;
}

/** JSON text that no value stands for, such as a number out of range or a key that is there twice. */
class Raw {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

const nested = (depth: number, open: string, close: string, inside = "1") =>
  new Raw(open.repeat(depth) + inside + close.repeat(depth));

const numbers = [
  0,
  -0,
  1,
  -1,
  2,
  0.5,
  -2.5,
  7,
  64,
  65_536,
  1e6,
  2 ** 31,
  2 ** 32 + 1,
  2 ** 53,
  1e300,
  -1e300,
];
const strings = [
  "",
  " ",
  "x",
  "(",
  "a b",
  "\0",
  "\x1b[31mred\x07",
  "\x9b2J",
  "\u202eabc",
  "\ud800",
  "toString",
].concat([
  "__proto__",
  "constructor",
  "../../x",
  "/etc/passwd",
  "C:\\x",
  "line\nline",
  "𝒳é",
  "1",
  "null",
  "[PAD]",
]);
const wholes: readonly unknown[] = [
  null,
  true,
  false,
  [],
  {},
  [null],
  [[]],
  [0],
  [1, 2, 3],
  ["a"],
  { a: 1 },
];
const raws = [
  "1e999",
  "-1e999",
  "-0",
  "9007199254740993",
  "1e-400",
  "123456789012345678901234567890",
]
  .map((text) => new Raw(text))
  .concat([nested(5000, "[", "]"), nested(100_000, "[", "]"), nested(20_000, '{"a":', "}")])
  .concat([new Raw('{"__proto__":{"vocab":1},"a":1}'), new Raw('{"constructor":{"prototype":1}}')]);

function otherValue(random: Random, old: unknown): unknown {
  const strange = () => pick(random, [numbers, strings, wholes, raws]);
  switch (below(random, 6)) {
    case 0:
      // As good as what was there, to the eye.
      if (typeof old === "number")
        return pick(random, [old + 1, old - 1, old * 2, -old, old / 2, String(old)]);
      if (typeof old === "string") return changedText(old, random);
      if (typeof old === "boolean") return pick<unknown>(random, [!old, String(old), Number(old)]);
      return pick(random, strange());
    case 1:
      return happens(random, 0.05) ? "long ".repeat(20_000) : pick(random, strings);
    case 2:
      return pick(random, numbers);
    default:
      return pick(random, strange());
  }
}

function changedText(text: string, random: Random): string {
  const at = below(random, text.length + 1);
  const put = pick(random, ["", "", "a", " ", "\0", "\x1b", "\\", "é", text.slice(0, 8)]);
  return text.slice(0, at) + put + text.slice(at + below(random, 2));
}

/**
 * A JSON text of the value with some members changed, at any depth; few, and near the root as often as far from it.
 * Members of the names in `kept` stay as they are.
 */
export function mutateJson(json: unknown, random: Random, kept: readonly string[] = []): string {
  let changed = json;
  do changed = changeWithin(changed, random, kept);
  while (happens(random, 0.3));
  return textOf(changed);
}

// Only what leads to the change is copied: the values are shared by all cases.
function changeWithin(value: unknown, random: Random, kept: readonly string[]): unknown {
  const isBranch = typeof value === "object" && value !== null && !(value instanceof Raw);
  const keys = isBranch ? Object.keys(value).filter((key) => !kept.includes(key)) : [];
  if (keys.length === 0 || happens(random, 0.05)) return otherValue(random, value);
  const key = pick(random, keys);
  const old = (value as Record<string, unknown>)[key];
  if (happens(random, 0.6) && typeof old === "object" && old !== null)
    return replaced(value, key, changeWithin(old, random, kept));
  const other = pick(random, keys);
  const others = value as Record<string, unknown>;
  switch (below(random, 8)) {
    case 0: // gone
      return Array.isArray(value)
        ? value.filter((_, i) => String(i) !== key)
        : Object.fromEntries(Object.entries(value as object).filter(([name]) => name !== key));
    case 1: // another's value
      return replaced(value, key, others[other]);
    case 2: // one more
      if (Array.isArray(value))
        return [...(value as unknown[]), pick<unknown>(random, [old, otherValue(random, old)])];
      return {
        ...others,
        [pick(
          random,
          strings.filter((name) => name !== "__proto__"),
        )]: old,
      };
    case 3: {
      // Twice: the raw text ends the first member and begins the second.
      if (Array.isArray(value))
        return replaced(value, key, new Raw(`${textOf(old)},${textOf(old)}`));
      const name = pick(random, [key, key, "__proto__"]);
      const second = textOf(otherValue(random, old));
      return replaced(value, key, new Raw(`${textOf(old)},${JSON.stringify(name)}:${second}`));
    }
    default:
      return replaced(value, key, otherValue(random, old));
  }
}

function replaced(value: unknown, key: string, put: unknown): unknown {
  if (Array.isArray(value)) return value.map((old: unknown, i) => (String(i) === key ? put : old));
  return { ...(value as object), [key]: put };
}

/** JSON with the raw texts in their places. */
export function textOf(value: unknown): string {
  const texts: string[] = [];
  const json = JSON.stringify(value, (_, inner: unknown) =>
    inner instanceof Raw ? `\ue000${texts.push(inner.text) - 1}\ue000` : inner,
  );
  return json.replace(/"\ue000(\d+)\ue000"/g, (_, index) => texts[Number(index)]!);
}
