// What a person sees: one progress line, tables within 80 columns, numbers that read well, colour where it is wanted.

const defaultColumns = 80;

export interface Output {
  readonly columns?: number | undefined;
  write(text: string): unknown;
  /** The same stream without its filter, for what moves the cursor. */
  readonly raw?: Output;
}

/** A stream as commands use it: nothing from outside moves the cursor; lines, and our own colours if any, pass. */
export function filtered(stream: Output, hasColor: boolean): Output {
  const own = hasColor ? [0, ...Object.values(codes)].map((code) => `\x1b[${code}m`) : [];
  const pass = (found: string) =>
    /^[\n\t]/.test(found) || own.includes(found) ? found : printable(found);
  return {
    raw: stream,
    get columns() {
      return stream.columns;
    },
    write: (text) => stream.write(text.replace(/\p{Cc}(?:\[\d+m)?/gu, pass)),
  };
}

export interface Progress {
  /** The state in short fields, the most important first: those past the edge are left out. `fraction` draws a bar. */
  update(fields: readonly string[], fraction?: number): void;
  /** A line that stays, above the progress. */
  line(text: string): void;
  /** Takes the progress away; more updates may follow. */
  done(): void;
}

/** Milliseconds between two updates: of a line that is redrawn, and of lines that stay. */
const PAUSES = { terminal: 100, plain: 10_000 } as const;

/**
 * A progress line that is redrawn in place on a terminal; elsewhere plain lines, the first update at once and then one
 * now and again. `now` is in milliseconds.
 */
export function progress(
  output: Output,
  { isTty, now }: { readonly isTty: boolean; readonly now: () => number },
): Progress {
  let shown = "";
  let next = Number.NEGATIVE_INFINITY;

  const clear = () => {
    if (isTty && shown) (output.raw ?? output).write("\r\x1b[2K");
  };
  return {
    update(fields, fraction) {
      if (now() < next) return;
      next = now() + PAUSES[isTty ? "terminal" : "plain"];
      // The last column stays free, for terminals that wrap as soon as it is filled.
      const columns = (isTty ? (output.columns ?? defaultColumns) : defaultColumns) - 1;
      const bar = isTty && fraction !== undefined ? [barOf(fraction)] : [];
      const text = fitting([...bar, ...fields].map(printable), columns);
      clear();
      output.write(isTty ? text : `${text}\n`);
      shown = text;
    },
    line(text) {
      clear();
      output.write(`${text}\n`);
      if (isTty) output.write(shown);
    },
    done() {
      clear();
      shown = "";
      next = Number.NEGATIVE_INFINITY;
    },
  };
}

/** Columns of text do not get narrower than this. */
const narrowest = 8;

/**
 * Rows under a header (empty: none), in columns two spaces apart; columns of numbers are set to the right. The widest
 * columns of text give way until the table fits.
 */
export function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  columns = defaultColumns,
): string {
  const lines = header.length > 0 ? [header, ...rows] : rows;
  const indices = [...Array(Math.max(0, ...lines.map((line) => line.length))).keys()];
  const widths = indices.map((i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  const isNumeric = indices.map((i) =>
    rows.every((row) => /^(?:[-+±]?\d|[-–]?$)/.test(row[i] ?? "")),
  );
  let excess = widths.reduce((sum, width) => sum + width, 2 * (indices.length - 1)) - columns;
  for (; excess > 0; excess--) {
    const texts = indices.filter((i) => !isNumeric[i] && widths[i]! > narrowest);
    const [widest] = texts.toSorted((a, b) => widths[b]! - widths[a]!);
    if (widest === undefined) break;
    widths[widest]!--;
  }
  const cells = (line: readonly string[]) =>
    indices.map((i) => {
      const text = shortened(line[i] ?? "", widths[i]!);
      return isNumeric[i] ? text.padStart(widths[i]!) : text.padEnd(widths[i]!);
    });
  return lines.map((line) => cells(line).join("  ").trimEnd()).join("\n");
}

/** A table of names and values; those without a value are left out. */
export function facts(
  values: Readonly<Record<string, string | null | undefined>>,
  columns?: number,
): string {
  const rows = Object.entries(values).filter((row): row is [string, string] => row[1] != null);
  return table([], rows, columns);
}

export type Style = Readonly<Record<keyof typeof codes, (text: string) => string>>;

const codes = { bold: 1, dim: 2, red: 31, yellow: 33 } as const;

/** Colours where a terminal shows them and NO_COLOR (no-color.org) is not set; FORCE_COLOR overrules. */
export function hasColor(isTty: boolean, env: Readonly<Record<string, string | undefined>>) {
  const isForced = Boolean(env["FORCE_COLOR"]) && env["FORCE_COLOR"] !== "0";
  return isForced || (isTty && !env["NO_COLOR"] && env["TERM"] !== "dumb");
}

export function style(isColored: boolean): Style {
  const paint = (code: number) => (text: string) =>
    isColored ? `\x1b[${code}m${text}\x1b[0m` : text;
  const styles = Object.entries(codes).map(([name, code]) => [name, paint(code)]);
  return Object.fromEntries(styles) as Style;
}

const numbers = (options: Intl.NumberFormatOptions) => {
  const { format } = new Intl.NumberFormat("en-US", options);
  return (value: number): string => format(value);
};

/** So many significant digits, but all those before the point. */
const significant = (digits: number, fraction = 0) =>
  numbers({
    minimumSignificantDigits: digits,
    maximumSignificantDigits: digits,
    maximumFractionDigits: fraction,
    roundingPriority: "morePrecision",
  });
const [twoDigits, fiveDigits] = [significant(2), significant(5)];
const percentDigits = { small: twoDigits, large: significant(3, 1) } as const;

/** `735M`, `1.100B`. */
const compact = (digits: number) =>
  numbers({
    notation: "compact",
    minimumSignificantDigits: digits,
    maximumSignificantDigits: digits,
  });
const [threeCompact, fourCompact] = [compact(3), compact(4)];

/** 18864 is `18,864`. */
export const formatInteger = numbers({ maximumFractionDigits: 0 });

/** Exact below a million, then `124.4M`, `1.100B`. */
export const formatParameters = (value: number) =>
  (value < 1e6 ? formatInteger : fourCompact)(value);

const BYTES: Readonly<Record<string, string>> = { K: "kB", M: "MB", B: "GB", T: "TB" };

/** Decimal units: `735 MB`, `2.05 GB`. */
export function formatBytes(value: number): string {
  const [, digits, unit] = /^(.*)([KMBT])$/.exec(threeCompact(value)) ?? [];
  return unit === undefined ? `${formatInteger(value)} B` : `${digits} ${BYTES[unit]}`;
}

/** `0.35 s`, `3.2 s`, `42 s`, `3m 05s`, `2h 07m`, `3d 04h`; `?` for what is not known. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 59.5) return `${seconds < 9.95 ? seconds.toPrecision(2) : Math.round(seconds)} s`;
  const two = (amount: number, of: number, [large, small]: readonly [string, string]) =>
    `${Math.floor(amount / of)}${large} ${String(amount % of).padStart(2, "0")}${small}`;
  const minutes = Math.round(seconds / 60);
  if (Math.round(seconds) < 3600) return two(Math.round(seconds), 60, ["m", "s"]);
  if (minutes < 48 * 60) return two(minutes, 60, ["h", "m"]);
  return two(Math.round(seconds / 3600), 24, ["d", "h"]);
}

/** Tokens per second: `3.2 tok/s`, `1,234 tok/s`. */
export const formatRate = (tokensPerSecond: number) => `${twoDigits(tokensPerSecond)} tok/s`;

/** Five significant digits: `63.802`, `1,234.5`; powers of ten from a million. */
export function formatPerplexity(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return value < 1e6 ? fiveDigits(value) : value.toExponential(2);
}

/** A percentage to about three digits, `0.015%`; with its sign where it is a change, `-10.3%`. */
export function formatPercent(percent: number, { isChange = false } = {}): string {
  const digits = percentDigits[Math.abs(percent) < 1 ? "small" : "large"](percent);
  return `${isChange && percent >= 0 ? "+" : ""}${percent === 0 ? 0 : digits}%`;
}

function barOf(fraction: number): string {
  const length = 20;
  const full = Math.round(length * Math.min(1, Math.max(0, fraction)));
  return `[${"=".repeat(full).padEnd(length)}]`;
}

function fitting(fields: readonly string[], columns: number): string {
  let text = "";
  for (const field of fields) {
    const longer = text ? `${text}  ${field}` : field;
    if (longer.length > columns) break;
    text = longer;
  }
  return text || shortened(fields[0] ?? "", columns);
}

/** Control characters as JSON writes them. */
function printable(text: string): string {
  const code = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return text.replace(/\p{Cc}/gu, code);
}

// The end of a path or name says more than its middle.
function shortened(text: string, columns: number): string {
  if (text.length <= columns) return text;
  const letters = Array.from(text);
  const head = Math.ceil((columns - 1) / 2);
  const tail = letters.length - (columns - 1 - head);
  return `${letters.slice(0, head).join("")}…${letters.slice(tail).join("")}`;
}
