// Where the answers of a conversation are in the text that a chat template makes of it: as the template marks them, or
// else found by what changes when other messages are rendered.

import { orElse, UserError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";

/** With a role and mostly a content; whatever else it has is the template's to read. */
export type Message = JsonObject & { readonly role: string };

/** A stretch of the rendered text. */
export type Span = readonly [start: number, end: number];

/** What is the matter with one row, such as messages that a template refuses: told with its place, or left out. */
export class RowProblem extends UserError {}

// Characters that Unicode keeps out of texts: around what a template itself marks, and in the place of an answer.
export const [open, close, probe] = ["\ufdd0", "\ufdd1", "\ufdd2"] as const;

interface Rendering {
  /** The whole conversation. */
  readonly marked: string;
  readonly render: (messages: readonly Message[], addsPrompt?: boolean) => string;
  readonly added: readonly string[];
}

/** By message, the stretches that the assistant says; of messages of the weight 0, as OpenAI has it, none. */
export function answerSpans(messages: readonly Message[], rendering: Rendering) {
  const { marked, render } = rendering;
  const said = [...messages.keys()].filter((at) => messages[at]!.role === "assistant");
  const places = said.filter((at) => messages[at]!["weight"] !== 0);
  if (!marked.includes(open))
    return new Map(places.map((at) => [at, [spanByRendering(messages, at, rendering)]]));
  const borders = Array.from(marked.matchAll(/[\ufdd0\ufdd1]/g), ({ index }, i) => index - i);
  const spans = borders.flatMap((start, i): Span[] => (i % 2 ? [] : [[start, borders[i + 1]!]]));
  // Marks do not say of which message they are; where it is not one each, the conversation so far has those so far.
  const numTo = (end: number) => render(messages.slice(0, end)).split(open).length - 1;
  const ofEach = (at: number) =>
    said.length === spans.length
      ? [spans[said.indexOf(at)]!]
      : spans.slice(at > 0 ? numTo(at) : 0, numTo(at + 1));
  return new Map(places.map((at) => [at, ofEach(at)]));
}

/**
 * Finds a message's stretch in the whole text by what changes when others are rendered: it begins where the messages
 * before it end with the header of an answer, and what follows its content is what follows another content in its
 * place. Nothing is taken that the text itself does not confirm.
 */
function spanByRendering(messages: readonly Message[], at: number, rendering: Rendering): Span {
  const { marked: text, added } = rendering;
  /** Undefined where the template refuses. */
  const render = (some: readonly Message[], addsPrompt?: boolean) =>
    orElse(() => rendering.render(some, addsPrompt), undefined);
  const [before, after] = [messages.slice(0, at), messages.slice(at + 1)];
  const other: Message = { role: messages[at]!.role, content: probe };
  const around = (some: readonly Message[]) => {
    const parts = render(some)?.split(probe) ?? [];
    return parts.length === 2 ? parts : [];
  };
  const [head, rest] = around([...before, other, ...after]);
  const [, tail = ""] = after.length === 0 ? [head, rest] : around([...before, other]);
  const start = startOf(
    text,
    render(before, true),
    render(before),
    head && withoutSpace(head, added),
  );
  const end = rest !== undefined && text.endsWith(rest) ? text.length - rest.length : -1;
  const turn = endOfTurn(tail, added) ?? sharedStart(tail, rest ?? "");
  if (start !== undefined && end >= start && rest!.startsWith(turn))
    return [start, end + turn.length];
  // A turn that is not content alone, such as a call of tools: up to where a conversation ends that ends with it.
  const upTo = render(messages.slice(0, at + 1));
  if (start !== undefined && upTo !== undefined && upTo.length > start && text.startsWith(upTo))
    return [start, start + withoutSpace(upTo.slice(start), added).length];
  throw new RowProblem(
    `the chat template does not let it be seen where message ${at + 1} begins and ends`,
    { hint: "mark it with {% generation %} in a copy for --chat-template, or --loss-on all" },
  );
}

/** Behind the header that is put before an answer that is to be generated; else behind what is before any content. */
function startOf(text: string, asked?: string, closed?: string, head?: string): number | undefined {
  if (asked !== undefined && asked !== closed && text.startsWith(asked)) return asked.length;
  if (head === undefined || !text.startsWith(head)) return undefined;
  // A space before the content is no header: it is generated with the first word.
  const isSpace =
    closed !== undefined && head.startsWith(closed) && !head.slice(closed.length).trim();
  return isSpace ? closed.length : head.length;
}

/** Up to the first special token behind a content. */
export function endOfTurn(tail: string, added: readonly string[]): string | undefined {
  const ends = added
    .filter((token) => tail.includes(token))
    .map((token) => tail.indexOf(token) + token.length);
  return ends.length > 0 ? tail.slice(0, Math.min(...ends)) : undefined;
}

/** Space behind a special token is the template's, and nothing that a model has to say. */
function withoutSpace(turn: string, added: readonly string[]): string {
  const bare = turn.trimEnd();
  return added.some((token) => bare.endsWith(token)) ? bare : turn;
}

function sharedStart(a: string, b: string): string {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  return a.slice(0, at);
}
