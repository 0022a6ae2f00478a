// What a person sees: one progress line, tables within 80 columns, numbers that read well, colour where it is wanted.
import { stripVTControlCharacters } from "node:util";
import { printable } from "../src/core/errors.ts";

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

/**
 * A progress line that is redrawn in place on a terminal, at most ten times a second; elsewhere plain lines, the first
 * update at once and then one every `everySeconds`. `now` is in milliseconds.
 */
export function progress(
  output: Output,
  options: { readonly isTty: boolean; readonly now: () => number; readonly everySeconds?: number },
): Progress {
  const { isTty, now, everySeconds = 10 } = options;
  const pause = isTty ? 100 : everySeconds * 1000;
  let shown = "";
  let next = Number.NEGATIVE_INFINITY;

  const clear = () => {
    if (isTty && shown) (output.raw ?? output).write("\r\x1b[2K");
  };
  return {
    update(fields, fraction) {
      if (now() < next) return;
      next = now() + pause;
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
  const widths = indices.map((i) => Math.max(...lines.map((line) => width(line[i] ?? ""))));
  const isNumeric = indices.map((i) =>
    rows.every((row) => /^(?:[-+±]?\d|[-–]?$)/.test(bare(row[i]))),
  );

  const gaps = 2 * (indices.length - 1);
  let excess = widths.reduce((sum, w) => sum + w, gaps) - columns;
  while (excess > 0) {
    const widest = indices
      .filter((i) => !isNumeric[i] && widths[i]! > narrowest)
      .toSorted((a, b) => widths[b]! - widths[a]!)[0];
    if (widest === undefined) break;
    widths[widest]!--;
    excess--;
  }
  return lines
    .map((line) =>
      indices
        .map((i) => {
          const cell = shortened(line[i] ?? "", widths[i]!);
          const padding = " ".repeat(widths[i]! - width(cell));
          return isNumeric[i] ? padding + cell : cell + padding;
        })
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const narrowest = 8;

/** A table of names and values; those without a value are left out. */
export function facts(values: Readonly<Record<string, string | false>>, columns?: number): string {
  const rows = Object.entries(values).filter(([, value]) => value !== false);
  return table([], rows as [string, string][], columns);
}

export type Style = Readonly<Record<keyof typeof codes, (text: string) => string>>;

const codes = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;

/** Colours where a terminal shows them and NO_COLOR (no-color.org) is not set; FORCE_COLOR overrules. */
export function hasColor(isTty: boolean, env: Readonly<Record<string, string | undefined>>) {
  const isForced = Boolean(env["FORCE_COLOR"]) && env["FORCE_COLOR"] !== "0";
  return isForced || (isTty && !env["NO_COLOR"] && env["TERM"] !== "dumb");
}

export function style(isTty: boolean, env: Parameters<typeof hasColor>[1]): Style {
  const isColored = hasColor(isTty, env);
  const paint = (code: number) => (text: string) =>
    isColored ? `\x1b[${code}m${text}\x1b[0m` : text;
  return {
    bold: paint(codes.bold),
    dim: paint(codes.dim),
    red: paint(codes.red),
    green: paint(codes.green),
    yellow: paint(codes.yellow),
  };
}

/** 18864 is `18,864`. */
export function formatInteger(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Exact below a million, then `124.4M`, `1.10B`. */
export function formatParameters(value: number): string {
  return value < 1e6 ? formatInteger(value) : scaled(value, ["", "k", "M", "B", "T"], "", 4);
}

/** Decimal units: `735 MB`, `2.05 GB`. */
export function formatBytes(value: number): string {
  return scaled(value, ["B", "kB", "MB", "GB", "TB"], " ", 3);
}

/** `0.35 s`, `3.2 s`, `42 s`, `3m 05s`, `2h 07m`, `3d 04h`; `?` for what is not known. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 59.5) return `${seconds < 9.95 ? seconds.toPrecision(2) : Math.round(seconds)} s`;
  const two = (value: number) => String(value).padStart(2, "0");
  const whole = Math.round(seconds);
  const minutes = Math.round(seconds / 60);
  const hours = Math.round(seconds / 3600);
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d ${two(hours % 24)}h`;
}

/** Tokens per second: `3.2 tok/s`, `1,234 tok/s`. */
export function formatRate(tokensPerSecond: number): string {
  const isSlow = tokensPerSecond < 99.5;
  return `${isSlow ? plain(tokensPerSecond, 2) : formatInteger(tokensPerSecond)} tok/s`;
}

/** Five significant digits: `63.802`, `1,234.5`; powers of ten from a million. */
export function formatPerplexity(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return value < 1e6 ? grouped(plain(value, 5)) : value.toExponential(2);
}

/** A percentage to about three digits, `0.015%`; with its sign where it is a change, `-10.3%`. */
export function formatPercent(percent: number, { isChange = false } = {}): string {
  const size = Math.abs(percent);
  const digits =
    size >= 10 ? percent.toFixed(1) : size >= 1 ? percent.toFixed(2) : plain(percent, 2);
  return `${isChange && percent >= 0 ? "+" : ""}${digits}%`;
}

function barOf(fraction: number): string {
  const length = 20;
  const full = Math.round(length * Math.min(1, Math.max(0, fraction)));
  return `[${"=".repeat(full)}${" ".repeat(length - full)}]`;
}

function fitting(fields: readonly string[], columns: number): string {
  let text = "";
  for (const field of fields) {
    const longer = text ? `${text}  ${field}` : field;
    if (width(longer) > columns) break;
    text = longer;
  }
  return text || shortened(fields[0] ?? "", columns);
}

function bare(text = ""): string {
  return stripVTControlCharacters(text);
}

function width(text: string): number {
  return Array.from(bare(text)).length;
}

// The end of a path or name says more than its middle.
function shortened(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  const letters = Array.from(bare(text));
  const head = Math.ceil((columns - 1) / 2);
  return `${letters.slice(0, head).join("")}…${letters.slice(letters.length - (columns - 1 - head)).join("")}`;
}

function scaled(value: number, units: readonly string[], gap: string, digits: number): string {
  let power = 0;
  // Rounding first: 999,999 bytes are 1.00 MB.
  while (power < units.length - 1 && Number(value.toPrecision(digits)) >= 1000) {
    value /= 1000;
    power++;
  }
  const text = power === 0 ? String(Math.round(value)) : value.toPrecision(digits);
  return `${text}${gap}${units[power]}`;
}

// toPrecision without its exponents.
function plain(value: number, digits: number): string {
  if (value === 0) return "0";
  const magnitude = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(digits)))));
  return value.toFixed(Math.min(100, Math.max(0, digits - 1 - magnitude)));
}

function grouped(digits: string): string {
  const [whole = "", fraction] = digits.split(".");
  return formatInteger(Number(whole)) + (fraction ? `.${fraction}` : "");
}
