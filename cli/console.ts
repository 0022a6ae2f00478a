// What a person sees: one progress line, tables within the terminal's columns, and nothing from outside that moves the cursor.

import { styleText } from "node:util";
import { printable } from "../src/core/errors.ts";
import type { Table } from "../src/report/tables.ts";

const defaultColumns = 80;

export interface Output {
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

/** The stream as commands use it: lines pass, and our own colours if it has any; other control characters are shown. */
export function filtered(stream: Output): Output {
  // `styleText` knows what terminal and environment say of colours (NO_COLOR, FORCE_COLOR).
  const colors = ["bold", "dim", "red", "yellow", "cyan", "blue"] as const;
  const own = colors.flatMap((color) => styleText(color, " ").split(" "));
  const pass = (found: string) =>
    /^[\n\t]/.test(found) || own.includes(found) ? found : printable(found);
  return { write: (text) => stream.write(text.replace(/\p{Cc}(?:\[\d+m)?/gu, pass)) };
}

/**
 * A progress line that is redrawn in place on a terminal, at most ten times a second; elsewhere plain lines, the first
 * update at once and then one every ten seconds. `now` is in milliseconds.
 */
export function progress(
  stream: Output,
  { isTty, now }: { readonly isTty: boolean; readonly now: () => number },
) {
  const output = filtered(stream);
  let shown = "";
  let next = Number.NEGATIVE_INFINITY;

  const clear = () => {
    if (isTty && shown) stream.write("\r\x1b[2K");
  };
  return {
    /** The state in short fields, the most important first: those past the edge are left out. `fraction` draws a bar. */
    update(fields: readonly string[], fraction?: number): void {
      if (now() < next) return;
      next = now() + (isTty ? 100 : 10_000);
      // The last column stays free, for terminals that wrap as soon as it is filled.
      const columns = ((isTty && stream.columns) || defaultColumns) - 1;
      const bar = isTty && fraction !== undefined ? [barOf(fraction)] : [];
      const text = fitting([...bar, ...fields].map(printable), columns);
      clear();
      output.write(isTty ? text : `${text}\n`);
      shown = text;
    },
    /** A line that stays, above the progress. */
    line(text: string): void {
      clear();
      output.write(`${text}\n`);
      if (isTty) output.write(shown);
    },
    /** Takes the progress away; more updates may follow. */
    done(): void {
      clear();
      shown = "";
      next = Number.NEGATIVE_INFINITY;
    },
  };
}

const narrowest = 8;

/**
 * Rows under a header (empty: none), in columns two spaces apart; columns of numbers are set to the right. The widest
 * columns of text give way until the table fits, but names, which other commands take, stay whole.
 */
export function table(header: Table[0], rows: Table[1], columns = defaultColumns): string {
  const lines = header.length > 0 ? [header, ...rows] : rows;
  const indices = [...Array(Math.max(0, ...lines.map((line) => line.length))).keys()];
  const widths = indices.map((i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  const isNumeric = indices.map((i) =>
    rows.every((row) => /^(?:[-+±]?\d|[-–]?$)/.test(row[i] ?? "")),
  );
  let excess = widths.reduce((sum, width) => sum + width, 2 * (indices.length - 1)) - columns;
  for (; excess > 0; excess--) {
    const mayShrink = (i: number) => !isNumeric[i] && header[i] !== "name";
    const texts = indices.filter((i) => mayShrink(i) && widths[i]! > narrowest);
    const [widest] = texts.toSorted((a, b) => widths[b]! - widths[a]!);
    if (widest === undefined) break;
    widths[widest]!--;
  }
  const cells = (line: readonly string[]) =>
    indices.map((i) => {
      const text = shortened(line[i] ?? "", widths[i]!, header.length === 0);
      return isNumeric[i] ? text.padStart(widths[i]!) : text.padEnd(widths[i]!);
    });
  return lines.map((line) => cells(line).join("  ").trimEnd()).join("\n");
}

export type Facts = Readonly<Record<string, string | 0 | null | undefined>>;

/** A table of names and values; those without a value are left out. */
export function facts(values: Facts, columns?: number): string {
  const rows = Object.entries(values).filter((row): row is [string, string] => Boolean(row[1]));
  return table([], rows, columns);
}

/** Text as it is, names and values, or a table. */
export type Section = string | Facts | Table;
const isTable = (section: Facts | Table): section is Table => Array.isArray(section);

/** Sections one below the other; empty ones are left out. */
export function laidOut(sections: readonly Section[], columns: number): string {
  const texts = sections.map((section) => {
    if (typeof section === "string") return section;
    return isTable(section) ? table(...section, columns) : facts(section, columns);
  });
  return texts.filter(Boolean).join("\n\n");
}

function barOf(fraction: number): string {
  const length = 20;
  const full = Math.round(length * Math.min(1, Math.max(0, fraction)));
  return `[${"=".repeat(full).padEnd(length)}]`;
}

function fitting(fields: readonly string[], columns: number): string {
  const lines = fields.map((_, i) => fields.slice(0, i + 1).join("  "));
  return lines.findLast((line) => line.length <= columns) ?? shortened(lines[0] ?? "", columns);
}

// The end of a path or name says more than its middle; a sentence loses whole words at its end.
function shortened(text: string, columns: number, isSentence = false): string {
  if (text.length <= columns) return text;
  const start = isSentence && text.slice(0, columns - 1).replace(/\S*$/, "");
  if (start) return `${start}…`;
  const letters = Array.from(text);
  const head = Math.ceil((columns - 1) / 2);
  const tail = letters.length - (columns - 1 - head);
  return `${letters.slice(0, head).join("")}…${letters.slice(tail).join("")}`;
}
