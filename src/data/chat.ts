// A model's chat template: how messages become the one text that the model sees, and which stretches of it are answers.
// Rendered as Python's transformers does it, by Hugging Face's own JavaScript edition of Jinja.

import { Template } from "@huggingface/jinja";
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { didYouMean, messageOf, UserError } from "../core/errors.ts";
import { isRecord, type JsonObject } from "../core/json.ts";
import { readIfPresent } from "../files/atomic.ts";
import { readJsonIfSound } from "../files/json.ts";
import { BUILT_IN_TEMPLATES, builtInTemplate } from "./chat-templates.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";

/** With a role and mostly a content; whatever else it has is the template's to read. */
export type Message = JsonObject & { readonly role: string };

export interface Conversation {
  readonly messages: readonly Message[];
  /** What a template may read beside them: tools, documents, switches of its own. */
  readonly variables?: JsonObject | undefined;
  /** The first message that can be an answer; those before it are the prompt. Default: 0. */
  readonly from?: number;
}

/** What counts: what the assistant says, the last of it alone, or everything. */
export const LOSS_ON = ["answers", "last", "all"] as const;
export type LossOn = (typeof LOSS_ON)[number];

/** A stretch of the rendered text. */
export type Span = readonly [start: number, end: number];

/** What is the matter with one row, such as messages that a template refuses: told with its place, or left out. */
export class RowProblem extends Error {
  readonly hint: string | undefined;

  constructor(message: string, { hint }: { readonly hint?: string | undefined } = {}) {
    super(message);
    this.hint = hint;
  }
}

export type ChatTemplate = ReturnType<typeof chatTemplate>;

/**
 * The template of a tokenizer's folder, or another: one of the folder's by its name, a built-in one, or a file's.
 * Undefined where none is asked for and the folder has none.
 */
export async function loadChatTemplate(
  tokenizer: Tokenizer,
  asked?: string | null,
): Promise<ChatTemplate | undefined> {
  const own = await templatesIn(tokenizer.folder);
  const tokens = await specialTokens(tokenizer);
  const make = (source: string, forTools?: string) =>
    chatTemplate({ source, forTools, tokens, added: tokenizer.specialTokens });
  if (asked == null) return own.default === undefined ? undefined : make(own.default, own.tool_use);
  const known = own[asked] ?? builtInTemplate(asked, tokenizer.prefix.length > 0);
  if (known !== undefined) return make(known);
  const text = await readFile(asked, "utf8").catch((cause: unknown) => {
    const names = [...Object.keys(own), ...BUILT_IN_TEMPLATES];
    throw new UserError(`${asked}: neither a file nor the name of a chat template`, {
      hint: didYouMean(asked, names) ?? `names: ${names.join(", ")}`,
      cause,
    });
  });
  return make(text);
}

interface Templates extends Readonly<Record<string, string | undefined>> {
  readonly default?: string;
  readonly tool_use?: string;
}

/** A folder's templates by name, as transformers finds them: files win over what tokenizer_config.json holds. */
async function templatesIn(folder: string): Promise<Templates> {
  const { chat_template: own } =
    (await readJsonIfSound(join(folder, "tokenizer_config.json"))) ?? {};
  const found: Record<string, string> = {};
  for (const each of [own].flat())
    if (typeof each === "string") found["default"] = each;
    else if (isRecord(each)) found[String(each["name"])] = String(each["template"]);
  const more = join(folder, "additional_chat_templates");
  const names = await readdir(more).catch(() => []);
  const files = names.filter((name) => name.endsWith(".jinja")).map((name) => join(more, name));
  for (const file of files) found[basename(file, ".jinja")] = await readFile(file, "utf8");
  const main = await readIfPresent(join(folder, "chat_template.jinja"));
  return { ...found, ...(main && { default: main.toString() }) };
}

/** Each with the name that templates know it by, such as `eos_token`. */
async function specialTokens({ folder, endOfText, pieceOf }: Tokenizer): Promise<JsonObject> {
  const end = endOfText === undefined ? "" : pieceOf(endOfText);
  const tokens: Record<string, unknown> = { eos_token: end };
  for (const file of ["special_tokens_map.json", "tokenizer_config.json"])
    for (const [key, value] of Object.entries((await readJsonIfSound(join(folder, file))) ?? {})) {
      const content = isRecord(value) ? value["content"] : value;
      if (key.endsWith("_token") && typeof content === "string") tokens[key] = content;
    }
  return tokens;
}

// Characters that Unicode keeps out of texts: around what a template itself marks, and in the place of an answer.
const [open, close, probe] = ["\ufdd0", "\ufdd1", "\ufdd2"] as const;

/** `{% generation %}`, which marks answers in a template, as a call that leaves their borders in the text. */
function withMarks(source: string): string {
  const macro = `{% macro answer_() %}${open}{{ caller() }}${close}{% endmacro %}\n`;
  const called = source.replace(
    /(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})/g,
    (_, start: string, end: string | undefined, stop: string) =>
      start + (end ? "endcall" : "call answer_()") + stop,
  );
  // The library has a clock of its own, in the language of the machine.
  return (called === source ? source : macro + called).replaceAll("strftime_now", "strftime_");
}

function parsed(source: string): Template {
  try {
    return new Template(withMarks(source));
  } catch (cause) {
    throw new UserError(`the chat template cannot be read: ${messageOf(cause)}`, { cause });
  }
}

interface TemplateParts {
  readonly source: string;
  /** Takes its place where there are tools. */
  readonly forTools?: string | undefined;
  /** By the names that templates know them by. */
  readonly tokens: JsonObject;
  /** Contents of the special tokens, one of which ends an answer. */
  readonly added: readonly string[];
}

export function chatTemplate({ source, forTools, tokens, added }: TemplateParts) {
  // Read when the first messages come: data of plain text has no use for it.
  const templates = new Map<string, Template>();
  const templateOf = (text: string) =>
    templates.get(text) ?? templates.set(text, parsed(text)).get(text)!;
  const isDated = /strftime_now/.test(source + (forTools ?? ""));
  const facts = [source, forTools, tokens, isDated && strftime("%Y-%m-%d")];

  const rendered = ({ messages, variables }: Conversation, addsPrompt = false): string => {
    const template = templateOf((variables?.["tools"] ? forTools : undefined) ?? source);
    const usual = { tools: null, documents: null, strftime_: strftime };
    const given = { ...usual, ...tokens, ...variables, messages };
    try {
      return template.render({ ...given, add_generation_prompt: addsPrompt });
    } catch (error) {
      throw new RowProblem(`the chat template refuses it: ${messageOf(error)}`);
    }
  };
  const render = (conversation: Conversation, addsPrompt = false) =>
    rendered(conversation, addsPrompt).replaceAll(/[\ufdd0\ufdd1]/g, "");

  const answers = (conversation: Conversation, on: Exclude<LossOn, "all"> = "answers"): Span[] => {
    const { messages, from = 0, variables } = conversation;
    if (/[\ufdd0-\ufdd2]/.test(JSON.stringify(messages)))
      throw new RowProblem("a message has a character from U+FDD0 to U+FDD2, which is none");
    const of = (...some: readonly Message[]) => ({ messages: some, variables });
    const spans = answerSpans(messages, {
      marked: rendered(conversation),
      render: (some, addsPrompt) => rendered(of(...some), addsPrompt),
      added,
    });
    const own = [...spans].filter(([at, { length }]) => at >= from && length > 0);
    if (own.length === 0)
      throw new RowProblem("no message of the assistant, so there is nothing to learn");
    return own.slice(on === "last" ? -1 : 0).flatMap(([, each]) => each);
  };
  return {
    /** In Jinja, to be put beside a model. */
    source,
    /** Of all that its texts depend on beside the messages. */
    sha256: createHash("sha256").update(JSON.stringify(facts)).digest("hex"),
    /** The text of messages; with the header of an answer behind it where one is to be generated. */
    render,
    /** What the assistant says, each time with what ends its turn, without the header before and the space behind. */
    answers,
  };
}

interface Rendering {
  /** The whole conversation. */
  readonly marked: string;
  readonly render: (messages: readonly Message[], addsPrompt?: boolean) => string;
  readonly added: readonly string[];
}

const isAnswer = ({ role, weight }: Message) => role === "assistant" && weight !== 0;

/** By message, the stretches that it says. */
function answerSpans(
  messages: readonly Message[],
  rendering: Rendering,
): ReadonlyMap<number, readonly Span[]> {
  const { marked } = rendering;
  const places = [...messages.keys()].filter((at) => isAnswer(messages[at]!));
  if (!marked.includes(open))
    return new Map(places.map((at) => [at, [spanByRendering(messages, at, rendering)]]));
  let removed = 0;
  const borders = Array.from(marked.matchAll(/[\ufdd0\ufdd1]/g), ({ index }) => index - removed++);
  const spans = borders.flatMap((start, i): Span[] => (i % 2 ? [] : [[start, borders[i + 1]!]]));
  // Marked stretches say nothing of messages, but the conversation so far has those so far.
  const numTo = (end: number) =>
    end === 0
      ? 0
      : (attempt(() => rendering.render(messages.slice(0, end))) ?? "").split(open).length - 1;
  if (places.length === spans.length) return new Map(places.map((at, i) => [at, [spans[i]!]]));
  return new Map(places.map((at) => [at, spans.slice(numTo(at), numTo(at + 1))]));
}

/** What a template gives; undefined where it refuses. */
function attempt<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    if (error instanceof RowProblem) return undefined;
    throw error;
  }
}

/**
 * Finds a message's stretch in the whole text by what changes when others are rendered: it begins where the messages
 * before it end with the header of an answer, and what follows its content is what follows another content in its
 * place. Nothing is taken that the text itself does not confirm.
 */
function spanByRendering(
  messages: readonly Message[],
  at: number,
  { marked: text, render, added }: Rendering,
): Span {
  const [before, after] = [messages.slice(0, at), messages.slice(at + 1)];
  const other: Message = { role: messages[at]!.role, content: probe };
  const around = (some: readonly Message[]) => {
    const parts = attempt(() => render(some))?.split(probe) ?? [];
    return parts.length === 2 ? parts : [];
  };
  const [head, rest] = around([...before, other, ...after]);
  const [, tail = ""] = around([...before, other]);
  const start = startOf(
    text,
    attempt(() => render(before, true)),
    attempt(() => render(before)),
    head,
  );
  const end = rest !== undefined && text.endsWith(rest) ? text.length - rest.length : -1;
  const turn = endOfTurn(tail, added) ?? sharedStart(tail, rest ?? "");
  if (start !== undefined && end >= start && rest!.startsWith(turn))
    return [start, end + turn.length];
  // A turn that is not content alone, such as a call of tools: up to where a conversation ends that ends with it.
  const upTo = attempt(() => render(messages.slice(0, at + 1)));
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
function endOfTurn(tail: string, added: readonly string[]): string | undefined {
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

export function sharedStart(a: string, b: string): string {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  return a.slice(0, at);
}

/** The present time as Python writes it in English. */
function strftime(format: string): string {
  const now = new Date();
  const two = (value: number) => String(value).padStart(2, "0");
  const word = (options: Intl.DateTimeFormatOptions) => now.toLocaleDateString("en-US", options);
  const fields: Readonly<Record<string, string>> = {
    Y: String(now.getFullYear()),
    m: two(now.getMonth() + 1),
    d: two(now.getDate()),
    B: word({ month: "long" }),
    b: word({ month: "short" }),
    A: word({ weekday: "long" }),
    a: word({ weekday: "short" }),
    H: two(now.getHours()),
    M: two(now.getMinutes()),
    S: two(now.getSeconds()),
    "%": "%",
  };
  return format.replace(/%(.)/g, (whole, letter: string) => fields[letter] ?? whole);
}
