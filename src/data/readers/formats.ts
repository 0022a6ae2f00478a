// The kinds of data files. A new one is a reader, a word and a row here.

import { existsSync } from "node:fs";
import type { Piece } from "../document.ts";
import type { Tokens } from "../tokens.ts";
import { readCsv } from "./csv.ts";
import { readJson, readJsonLines } from "./json.ts";
import { readParquet } from "./parquet.ts";
import type { Row } from "./rows.ts";
import { readPlainText } from "./text.ts";
import { readTokenFile } from "./token-file.ts";

export type DataFormat = "txt" | "jsonl" | "json" | "csv" | "parquet" | "bin";

type Format = { readonly extensions: readonly string[] } & (
  | { readonly holds: "text"; read(path: string): AsyncIterable<Piece> }
  /** `field` is the column that the user named, if any. */
  | { readonly holds: "rows"; read(path: string, field?: string): AsyncIterable<Row> }
  | { readonly holds: "tokens"; read(path: string, vocabSize: number): Promise<Tokens> }
);

const orGzip = (...names: readonly string[]) => names.flatMap((name) => [name, `${name}.gz`]);

export const formats: Readonly<Record<DataFormat, Format>> = {
  txt: { extensions: orGzip(".txt", ".md"), holds: "text", read: readPlainText },
  jsonl: { extensions: orGzip(".jsonl"), holds: "rows", read: readJsonLines },
  json: { extensions: orGzip(".json"), holds: "rows", read: readJson },
  csv: { extensions: orGzip(".csv", ".tsv"), holds: "rows", read: readCsv },
  parquet: { extensions: [".parquet"], holds: "rows", read: readParquet },
  bin: { extensions: [".bin", ".npy"], holds: "tokens", read: readTokenFile },
};

const extensions = Object.values(formats).flatMap((format) => format.extensions);

/** For messages. */
export const knownExtensions = `${extensions.filter((name) => !name.endsWith(".gz")).join(", ")}, or text behind .gz`;

export function formatOf(path: string): DataFormat | undefined {
  const name = path.toLowerCase();
  return (Object.keys(formats) as DataFormat[]).find((format) =>
    formats[format].extensions.some((extension) => name.endsWith(extension)),
  );
}

/** Whether a name of data is a place on this machine. */
export function isDataPath(name: string): boolean {
  return /^(\.{0,2}[\\/]|~|\w:\\)/.test(name) || formatOf(name) !== undefined || existsSync(name);
}
