// WikiText as the language-model evaluation harness scores it: page by page, with the tokenized spacing undone.

import type { Piece, Remake } from "../document.ts";

/** Takes all texts for lines of one file, and cuts it at the level-one headings (" = Title = ") into pages. */
export const wikitextPages: Remake = {
  name: "WikiText pages",
  async *of(rows) {
    let page: string[] = [];
    let line = "";
    let isRowStart = true;
    let isEmptyRow = true;
    const finish = function* (next: string): Generator<Piece> {
      const original = page.join("\n");
      page = [next];
      if (original.trim() !== "")
        yield { text: detokenize(original), isTarget: true, original, isLast: true };
    };
    for await (const { text, isLast } of rows) {
      isEmptyRow = text === "" && (isRowStart || isEmptyRow);
      // Data sets of lines have emptied the file's blank ones; those of pages have left out the line ends between them.
      const missing = isRowStart && line !== "" ? "\n" : "";
      const lines = (line + missing + (isLast && isEmptyRow ? " \n" : text)).split("\n");
      line = lines.pop()!;
      isRowStart = isLast;
      for (const whole of lines) {
        if (isPageHeading(whole)) yield* finish(whole);
        else page.push(whole);
      }
    }
    if (isPageHeading(line)) yield* finish(line);
    else page.push(line);
    yield* finish("");
  },
};

function isPageHeading(line: string): boolean {
  const heading = line.replaceAll("= = =", "===").replaceAll("= =", "==").trim();
  return heading.startsWith("= ") && heading.endsWith(" =");
}

// What Python's \s matches: U+FEFF is no space to it, and four control characters and U+0085 are.
const space = String.raw`(?:[^\S\ufeff]|[\x1c-\x1f\x85])`;

export const countWords = (text: string): number => text.split(new RegExp(`${space}+`)).length;

const between = (open: string, close: string) =>
  new RegExp(`${open}${space}*([^${close}]*?)${space}*${close}`, "g");

// In this order, each on the result of the one before. The second does nothing to real text, but it is how the
// published numbers were made.
const replacements: readonly (readonly [RegExp | string, string])[] = [
  ["s '", "s'"],
  [/\/' [0-9]\//g, "/'[0-9]/"],
  ...["-", ",", "."].map((mark) => [` @${mark}@ `, mark] as const),
  ...[":", ";", ".", "!", "?", ","].map((mark) => [` ${mark} `, `${mark} `] as const),
  [between("\\(", "\\)"), "($1)"],
  [between("\\[", "\\]"), "[$1]"],
  [between("{", "}"), "{$1}"],
  [between('"', '"'), '"$1"'],
  [between("'", "'"), "'$1'"],
  ["= = = =", "===="],
  ["= = =", "==="],
  ["= =", "=="],
  [" \u00b0 ", "\u00b0"],
  [" \n", "\n"],
  ["\n ", "\n"],
  [" N ", " 1 "],
  [" 's", "'s"],
];

/** Undoes the spacing of WikiText's own tokenization, mistakes of the reference included. */
export const detokenize = (text: string): string =>
  replacements.reduce((result, [from, to]) => result.replaceAll(from, to), text);
