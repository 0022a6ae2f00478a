// Numbers that read well.

const numbers = (options: Intl.NumberFormatOptions): ((value: number) => string) =>
  new Intl.NumberFormat("en-US", options).format;

const exactly = (n: number) => ({ minimumSignificantDigits: n, maximumSignificantDigits: n });

/** So many significant digits, but all those before the point. */
const significant = (digits: number, maximumFractionDigits = 0) =>
  numbers({ ...exactly(digits), maximumFractionDigits, roundingPriority: "morePrecision" });
const [twoDigits, threeDigits, fiveDigits] = [significant(2), significant(3, 1), significant(5)];

/** `735M`, `1.100B`. */
const compact = (digits: number) => numbers({ ...exactly(digits), notation: "compact" });
const [threeCompact, fourCompact] = [compact(3), compact(4)];

/** 18864 is `18,864`. */
export const integer = numbers({ maximumFractionDigits: 0 });

/** `1 sequence`, `2,000 sequences`. */
export const counted = (count: number, word: string) =>
  `${integer(count)} ${word}${count === 1 ? "" : "s"}`;

/** Exact below a million, then `124.4M`, `1.100B`. */
export const parameters = (value: number) => (value < 1e6 ? integer : fourCompact)(value);

/** Decimal units: `735 MB`, `2.05 GB`. */
export function bytes(value: number): string {
  const units: Readonly<Record<string, string>> = { K: "kB", M: "MB", B: "GB", T: "TB" };
  const [, digits, unit] = /^(.*)([KMBT])$/.exec(threeCompact(value)) ?? [];
  return unit === undefined ? `${integer(value)} B` : `${digits} ${units[unit]}`;
}

/** `0.35 s`, `3.2 s`, `42 s`, `3m 05s`, `2h 07m`, `3d 04h`; `?` for what is not known. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 59.5) return `${seconds < 9.95 ? seconds.toPrecision(2) : Math.round(seconds)} s`;
  const two = (amount: number, of: number, large: string, small: string) =>
    `${Math.floor(amount / of)}${large} ${String(amount % of).padStart(2, "0")}${small}`;
  const whole = (unit: number) => Math.round(seconds / unit);
  if (whole(1) < 3600) return two(whole(1), 60, "m", "s");
  return whole(60) < 48 * 60 ? two(whole(60), 60, "h", "m") : two(whole(3600), 24, "d", "h");
}

/** Tokens per second: `3.2 tok/s`, `1,234 tok/s`. */
export const rate = (tokensPerSecond: number) => `${twoDigits(tokensPerSecond)} tok/s`;

/** Five significant digits: `63.802`, `1,234.5`; powers of ten from a million. */
export function perplexity(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return value < 1e6 ? fiveDigits(value) : value.toExponential(2);
}

/** A change in percent to about three digits, `-10.3%`, `+0.015%`. */
export function change(percent: number): string {
  const digits = percent === 0 ? "0" : (Math.abs(percent) < 1 ? twoDigits : threeDigits)(percent);
  return `${percent >= 0 ? "+" : ""}${digits}%`;
}

/** 0.001086 is `0.1086 %`. */
export const share = (value: number) => `${(100 * value).toFixed(4)} %`;
