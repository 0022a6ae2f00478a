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
import { answerSpans, close, endOfTurn, open, probe, RowProblem } from "./chat-answers.ts";
import type { Message, Span } from "./chat-answers.ts";
import type { Tokenizer } from "./tokenizer/read-tokenizer.ts";

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

/** For models that bring none, by name, in Jinja; BOS stands for the token that the tokenizer itself puts in front of texts, where it does. */
const templates = {
  /** Of OpenAI and Qwen; best where <|im_start|> and <|im_end|> are tokens of the vocabulary. */
  chatml: `{{ BOS }}{% for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`,

  /** Names before what they say, for any vocabulary; an answer ends with the model's own end of text. */
  plain: `{{ BOS }}{% for message in messages %}
{{- ('' if loop.first else '\\n\\n') + message.role | capitalize + ': ' + message.content }}
{%- if message.role == 'assistant' %}{{ eos_token }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}`,

  /** Alpaca's (Taori et al., 2023): an instruction, with an input where there is one, and the response. */
  alpaca: `{{ BOS }}{% for message in messages %}
{%- if loop.first and message.role != 'system' %}
{{- 'Below is an instruction that describes a task' }}
{{- ', paired with an input that provides further context' if message.input }}
{{- '. Write a response that appropriately completes the request.\\n\\n' }}
{%- elif not loop.first %}{{ '\\n\\n' }}
{%- endif %}
{%- if message.role == 'user' %}
{{- '### Instruction:\\n' + (message.instruction or message.content) }}
{{- '\\n\\n### Input:\\n' + message.input if message.input }}
{%- elif message.role == 'assistant' %}{{ '### Response:\\n' + message.content + eos_token }}
{%- else %}{{ message.content }}
{%- endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '\\n\\n### Response:\\n' }}{% endif %}`,
};

export const BUILT_IN_TEMPLATES = Object.keys(templates) as readonly string[];

export type ChatTemplate = ReturnType<typeof chatTemplate>;

/** What templates write as the date in what is learnt or scored, so that data are the same every day: Llama 3's own default. */
const LEARNT = new Date(2024, 6, 26);

/**
 * The template of a tokenizer's folder, or another: one of the folder's by its name, a built-in one, or a file's.
 * Undefined where none is asked for and the folder has none. `now` is the time that it writes.
 */
export async function loadChatTemplate(tokenizer: Tokenizer, asked?: string | null, now = LEARNT) {
  const own = await templatesIn(tokenizer.folder);
  const tokens = await specialTokens(tokenizer);
  const make = (source: string, forTools?: string) =>
    chatTemplate({ source, forTools, tokens, added: tokenizer.specialTokens, now });
  const { default: usual, tool_use: forTools } = own;
  if (asked == null) return usual === undefined ? undefined : make(usual, forTools);
  const known = own[asked] ?? builtIn(asked, tokenizer);
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

/** An answer has to end with a token, or nothing ends it when it is generated. */
function builtIn(name: string, { prefix, encode }: Tokenizer): string | undefined {
  if (!Object.hasOwn(templates, name)) return undefined;
  const ending = { text: "<|im_end|>", isTarget: true, isLast: true };
  if (name === "chatml" && encode([ending]).ids.length > 1)
    throw new UserError("the vocabulary has no <|im_end|>, which ends the answers of chatml", {
      hint: "--chat-template plain is for any vocabulary",
    });
  const bos = prefix.length > 0 ? "{{ bos_token }}" : "";
  return templates[name as keyof typeof templates].replace("{{ BOS }}", bos);
}

/** A folder's templates by name, as transformers finds them: files win over what tokenizer_config.json holds. */
async function templatesIn(folder: string): Promise<Readonly<Record<string, string>>> {
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
  readonly now: Date;
}

export function chatTemplate({ source, forTools, tokens, added, now }: TemplateParts) {
  // Read when the first messages come: data of plain text has no use for it.
  const templates = new Map<string, Template>();
  const templateOf = (text: string) =>
    templates.get(text) ?? templates.set(text, parsed(text)).get(text)!;
  const time = (format: string) => strftime(now, format);
  const facts = [source, forTools, tokens, time("%Y-%m-%d")];

  const rendered = ({ messages, variables }: Conversation, addsPrompt = false): string => {
    const template = templateOf((variables?.["tools"] ? forTools : undefined) ?? source);
    const usual = { tools: null, documents: null, strftime_: time };
    const given = { ...usual, ...tokens, ...variables, messages };
    try {
      return template.render({ ...given, add_generation_prompt: addsPrompt });
    } catch (error) {
      const empty = messages.findIndex(({ content }) => content == null) + 1;
      const lack = empty ? `message ${empty} has no content (null), ` : "";
      throw new RowProblem(`${lack}the chat template refuses it: ${messageOf(error)}`);
    }
  };
  const bare = (marked: string) => marked.replaceAll(/[\ufdd0\ufdd1]/g, "");
  const render = (conversation: Conversation, addsPrompt = false) =>
    bare(rendered(conversation, addsPrompt));

  const learn = (conversation: Conversation, on: LossOn) => {
    const { messages, from = 0, variables } = conversation;
    const marked = rendered(conversation);
    const text = bare(marked);
    const whole: readonly Span[] = [[0, text.length]];
    if (on === "all") return { text, spans: whole };
    const renderSome = (some: readonly Message[], addsPrompt?: boolean) =>
      rendered({ messages: some, variables }, addsPrompt);
    const spans = answerSpans(messages, { marked, render: renderSome, added });
    const own = [...spans].filter(([at, { length }]) => at >= from && length > 0);
    if (own.length === 0)
      throw new RowProblem("no message of the assistant, so there is nothing to learn", {
        hint: "--loss-on all learns all messages, --skip-bad-rows leaves such rows out",
      });
    return { text, spans: own.slice(on === "last" ? -1 : 0).flatMap(([, each]) => each) };
  };
  return {
    /** In Jinja, to be put beside a model. */
    source,
    /** Of all that its texts depend on beside the messages. */
    sha256: createHash("sha256").update(JSON.stringify(facts)).digest("hex"),
    /** The text of messages; with the header of an answer behind it where one is to be generated. */
    render,
    /** And what of it counts: answers, each with what ends its turn, without the header before and the space behind. */
    learn,
    endOfTurn: () => {
      const turn = ["user", "assistant"].map((role) => ({ role, content: probe }));
      const tail = render({ messages: turn }).split(probe)[2] ?? "";
      return endOfTurn(tail, added) ?? tail.trimEnd();
    },
  };
}

/** The choice that there is where a model brings no template. */
export const noTemplate = (whose = "the model") =>
  new UserError(`conversations need a chat template, and ${whose} has none`, {
    hint: `choose one: --chat-template ${BUILT_IN_TEMPLATES.join(", ")}, or a file`,
  });

/** A time as Python writes it in English, whatever the language of the machine. */
function strftime(now: Date, format: string): string {
  const [a = "", b = "", d = "", Y = "", time = ""] = now.toString().split(" ");
  const [H = "", M = "", S = ""] = time.split(":");
  const m = String(now.getMonth() + 1).padStart(2, "0");
  const B = now.toLocaleDateString("en-US", { month: "long" });
  const A = now.toLocaleDateString("en-US", { weekday: "long" });
  const fields: Readonly<Record<string, string>> = { a, b, d, Y, H, M, S, m, B, A, "%": "%" };
  return format.replace(/%(.)/g, (whole, letter: string) => fields[letter] ?? whole);
}
