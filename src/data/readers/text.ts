// Text files, also behind gzip, as characters and as lines; no file has to fit into one string.

import { createReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { codeOf, UserError } from "../../core/errors.ts";
import type { Piece } from "../document.ts";

/** The whole file is one document. */
export async function* readPlainText(path: string): AsyncGenerator<Piece> {
  for await (const text of readCharacters(path)) yield { text, isTarget: true, isLast: false };
  yield { text: "", isTarget: true, isLast: true };
}

export async function* readLines(path: string): AsyncGenerator<string> {
  let rest = "";
  for await (const text of readCharacters(path)) {
    rest += text;
    if (!text.includes("\n")) continue;
    const lines = rest.split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
  yield rest;
}

export async function* readCharacters(path: string): AsyncGenerator<string> {
  // Fatal: replacement characters would change the tokens silently. The mark at a file's start is part of the text.
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const file = createReadStream(path, { highWaterMark: 1 << 20 });
  let offset = 0;
  try {
    const source = /\.gz$/i.test(path) ? pipeline(file, createGunzip(), () => undefined) : file;
    for await (const bytes of source as AsyncIterable<Buffer>) {
      yield decoder.decode(bytes, { stream: true });
      offset += bytes.length;
    }
    yield decoder.decode();
  } catch (error) {
    const code = codeOf(error);
    if (code?.startsWith("Z_"))
      throw new UserError(`${path} is not gzip, or not all of it`, { cause: error });
    if (code !== "ERR_ENCODING_INVALID_ENCODED_DATA") throw error;
    throw new UserError(`${path} is not UTF-8 text (somewhere after byte ${offset})`, {
      hint: "convert it, for example with iconv -t utf-8",
      cause: error,
    });
  }
}
