// All that a tokenizer.json says is done to a text, in the reference's order: added tokens are found first.

import { expressionOf } from "./library.ts";
import { normalizerOf, preTokenizerOf } from "./text-steps.ts";
import type { AddedToken, TokenizerJson, Vocabulary } from "./tokenizer-json.ts";
import { wordModels } from "./word-models.ts";

/** The tokens of a stretch of a text that begins at `start`. */
type Encoder = (text: string, start: number) => number[];

// Halves of surrogate pairs, which UTF-8 cannot write.
const loneHalves = /\p{Cs}/gu;

export function textEncoder(json: TokenizerJson, ids: Vocabulary): (text: string) => number[] {
  const normalize = normalizerOf(json.normalizer);
  const preTokenize = preTokenizerOf(json.pre_tokenizer);
  const encodeWord = wordModels[json.model.type](json.model, ids);
  const formsOf = (normalizes: boolean) =>
    json.added_tokens
      .filter(({ normalized, special }) => (normalized ?? !special) === normalizes)
      .map((token) => [normalizes ? normalize(token.content) : token.content, token] as const);
  const encodeNormalized = withTokens(formsOf(true), (text, start) =>
    preTokenize(text, start === 0).flatMap(encodeWord),
  );
  const encode = withTokens(formsOf(false), (text, start) =>
    encodeNormalized(normalize(text), start),
  );
  return (text) => encode(text.replace(loneHalves, "\ufffd"), 0);
}

const wordEnd = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const wordStart = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const spacesEnd = /\p{White_Space}*$/u;
const spacesStart = /^\p{White_Space}*/u;

/** Finds tokens by the forms given for them, the leftmost first, the longest of several; `encode` is for the rest. */
function withTokens(tokens: readonly (readonly [string, AddedToken])[], encode: Encoder): Encoder {
  const byForm = new Map(tokens);
  const forms = [...byForm.keys()].filter(Boolean).sort((a, b) => b.length - a.length);
  if (forms.length === 0) return encode;
  const sources = forms.map((form) => expressionOf({ String: form }).source);
  const expression = new RegExp(sources.join("|"), "gu");
  return (text, offset) => {
    const ids: number[][] = [];
    let end = 0;
    const encodeTo = (stop: number): void => {
      if (stop > end) ids.push(encode(text.slice(end, stop), offset + end));
    };
    for (const { 0: form, index } of text.matchAll(expression)) {
      const { id, single_word: isWord, lstrip, rstrip } = byForm.get(form)!;
      const [before, after] = [text.slice(end, index), text.slice(index + form.length)];
      const touches = wordEnd.test(text.slice(0, index).slice(-2)) || wordStart.test(after);
      if (isWord && touches) continue;
      encodeTo(index - (lstrip ? spacesEnd.exec(before)![0].length : 0));
      ids.push([id]);
      end = index + form.length + (rstrip ? spacesStart.exec(after)![0].length : 0);
    }
    encodeTo(text.length);
    return ids.flat();
  };
}
