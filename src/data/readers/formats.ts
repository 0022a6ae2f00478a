// The formats of files of data, by what their names end with.

import type { Piece, Stretched, Tokens } from "../document.ts";
import { readArrow } from "./arrow.ts";
import { COMPRESSIONS } from "./compressed.ts";
import { readParquet } from "./parquet.ts";
import { type RowOptions, rows } from "./rows.ts";
import { readCsv, readJson, readJsonLines, readPlainText } from "./text.ts";
import { readTokenFile } from "./token-file.ts";

type Format = { readonly extensions: readonly string[] } & (
  | { readonly holds: "text"; read(path: string, options: RowOptions): AsyncIterable<Piece> }
  | { readonly holds: "tokens"; read(path: string, vocabSize: number): Promise<Stretched<Tokens>> }
);

const compressed = (...names: readonly string[]) =>
  names.flatMap((name) => [name, ...COMPRESSIONS.map((end) => name + end)]);

/** The kinds of data files. A new one is a reader and a row here. */
export const formats = {
  txt: { extensions: compressed(".txt", ".md"), holds: "text", read: readPlainText },
  jsonl: { extensions: compressed(".jsonl"), holds: "text", read: rows(readJsonLines) },
  json: { extensions: compressed(".json"), holds: "text", read: rows(readJson) },
  csv: { extensions: compressed(".csv", ".tsv"), holds: "text", read: rows(readCsv) },
  parquet: { extensions: [".parquet"], holds: "text", read: rows(readParquet) },
  arrow: { extensions: [".arrow", ".feather"], holds: "text", read: rows(readArrow) },
  bin: { extensions: [".bin", ".npy"], holds: "tokens", read: readTokenFile },
} satisfies Readonly<Record<string, Format>>;
export type DataFormat = keyof typeof formats;

const extensions = Object.values(formats).flatMap((format) => format.extensions);
const plain = extensions.filter((name) => !COMPRESSIONS.some((end) => name.endsWith(end)));
/** What a message says of them. */
export const expected = `expected ${plain.join(", ")}, or text behind ${COMPRESSIONS.join(" or ")}`;

export function formatOf(path: string): DataFormat | undefined {
  const isOf = (extension: string) => path.toLowerCase().endsWith(extension);
  return (Object.keys(formats) as DataFormat[]).find((key) => formats[key].extensions.some(isOf));
}
