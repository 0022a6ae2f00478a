// Added tokens are found in a text before anything else is done to it.

import { escaped } from "./text-steps.ts";
import type { AddedToken } from "./tokenizer-json.ts";

/** A stretch of a text: an added token, or what lies between two. */
export interface Span {
  readonly text: string;
  readonly start: number;
  readonly token: AddedToken | undefined;
}

const wordEnd = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const wordStart = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const spacesEnd = /\p{White_Space}*$/u;
const spacesStart = /^\p{White_Space}*/u;

/** Finds tokens by the forms given for them, the leftmost first, the longest of several. */
export function tokenFinder(
  tokens: ReadonlyMap<string, AddedToken>,
): (text: string) => readonly Span[] {
  const forms = [...tokens.keys()].filter(Boolean).sort((a, b) => b.length - a.length);
  if (forms.length === 0) return (text) => [{ text, start: 0, token: undefined }];
  const expression = new RegExp(forms.map(escaped).join("|"), "gu");
  return (text) => {
    const spans: Span[] = [];
    let end = 0;
    const add = (start: number, stop: number, token?: AddedToken): void => {
      if (stop > start) spans.push({ text: text.slice(start, stop), start, token });
    };
    for (const { 0: form, index } of text.matchAll(expression)) {
      const token = tokens.get(form)!;
      const [before, after] = [text.slice(end, index), text.slice(index + form.length)];
      const touches = wordEnd.test(text.slice(0, index).slice(-2)) || wordStart.test(after);
      if (token.single_word && touches) continue;
      const start = index - (token.lstrip ? spacesEnd.exec(before)![0].length : 0);
      const spaces = token.rstrip ? spacesStart.exec(after)![0].length : 0;
      add(end, start);
      add(start, (end = index + form.length + spaces), token);
    }
    add(end, text.length);
    return spans;
  };
}
