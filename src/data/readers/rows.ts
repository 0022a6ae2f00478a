// What a row is, by its keys: a text, a prompt with its completion, an instruction, or a conversation; and the document
// that it makes.

import { didYouMean, orElse, UserError } from "../../core/errors.ts";
import { isRecord, type JsonObject, shown } from "../../core/json.ts";
import { type ChatTemplate, type LossOn, noTemplate } from "../chat.ts";
import { type Message, RowProblem } from "../chat-answers.ts";
import type { Piece } from "../document.ts";

export interface Row {
  readonly value: unknown;
  /** Where it is, for messages: file and line or row. */
  readonly place: string;
  /** The column that is the text, where the reader chose it. */
  readonly textColumn?: string | undefined;
  /** Why there is no value. */
  readonly problem?: RowProblem;
}

/** In the order in which they are looked for, as the field names them. */
export const ROW_FORMATS = ["chat", "instruct", "text", "prompt-completion"] as const;
export type RowFormat = (typeof ROW_FORMATS)[number];

/** What a row is asked for, by the names that it has unless `columns` has others. */
export const ROW_FIELDS = [
  ...(["messages", "tools", "instruction", "input", "output", "system"] as const),
  ...(["text", "prompt", "completion"] as const),
] as const;
type Field = (typeof ROW_FIELDS)[number];

/** Which columns to read, and what as. */
export interface ColumnOptions {
  /** What rows are, where their keys are not to say it. */
  readonly format?: RowFormat | "auto" | undefined;
  readonly textColumn?: string | null | undefined;
  /** Names of columns by those of fields. */
  readonly columns?: { readonly [name in Field]?: string | undefined } | null | undefined;
  /** Columns to read whatever they hold, in the place of those that a kind of row has. */
  readonly needs?: readonly string[] | undefined;
}

/** Makes documents of rows that are of none of the kinds, by the columns that it needs. */
export type RowMaker = {
  readonly needs: readonly string[];
  pieces(row: JsonObject): readonly Piece[];
};

export interface RowOptions extends Omit<ColumnOptions, "needs"> {
  readonly make?: RowMaker | undefined;
  readonly lossOn?: LossOn | undefined;
  /** What becomes of rows that cannot be read or are no such rows, and of those whose text is null: refused by default. */
  readonly badRows?: "error" | "skip" | undefined;
  readonly nullRows?: "error" | "skip" | undefined;
  /** How messages become text; absent where the model has no template. */
  readonly template?: ChatTemplate | undefined;
  /** How instructions do, where the model has none. */
  readonly instructTemplate?: ChatTemplate | undefined;
  /** The first row that was read, in data that may be of several files. */
  readonly first?: { kind?: string; place?: string };
}

type Fields = Readonly<Partial<Record<Field, unknown>>>;

interface Kind {
  readonly needs: readonly Field[];
  readonly takes: readonly Field[];
  pieces(fields: Fields, options: RowOptions): readonly Piece[];
}

const kinds: Readonly<Record<RowFormat, Kind>> = {
  chat: {
    needs: ["messages"],
    takes: ["system", "tools"],
    pieces: (fields, options) => chat(messagesOf(fields.messages, "messages"), fields, options),
  },
  instruct: {
    needs: ["instruction", "output"],
    takes: ["input", "system"],
    pieces(fields, { template, instructTemplate, ...options }) {
      const instruction = textField(fields, "instruction");
      const content = textField(fields, "output");
      const input = fields.input == null ? "" : textField(fields, "input");
      const asked = { role: "user", content: [instruction, input].filter(Boolean).join("\n\n") };
      const messages = [
        { ...asked, instruction, input },
        { role: "assistant", content },
      ];
      return chat(messages, fields, { ...options, template: template ?? instructTemplate });
    },
  },
  text: {
    needs: ["text"],
    takes: [],
    pieces: (fields) => [{ text: textField(fields, "text"), isTarget: true, isLast: true }],
  },
  "prompt-completion": {
    needs: ["prompt", "completion"],
    takes: ["system", "tools"],
    pieces(fields, options) {
      if (Array.isArray(fields.prompt) && Array.isArray(fields.completion)) {
        const prompt = messagesOf(fields.prompt, "prompt");
        const messages = [...prompt, ...messagesOf(fields.completion, "completion")];
        return chat(messages, fields, options, prompt.length);
      }
      const [prompt, completion] = [textField(fields, "prompt"), textField(fields, "completion")];
      return [
        { text: prompt, isTarget: options.lossOn === "all", isLast: false },
        { text: completion, isTarget: true, isLast: true },
      ];
    },
  },
};

/** Fields whose column has another usual name. */
const usual: { readonly [name in Field]?: string } = { messages: "conversations" };

export const isMessages = (name = "") => name === "messages" || name === usual.messages;

/** What columns of these names are, and which of them hold its fields; a column that is named has to be there. */
export function recognised(known: readonly string[], options: ColumnOptions) {
  const { format = "auto", columns, textColumn } = options;
  const text = textColumn != null && { text: textColumn };
  const given: Readonly<Record<string, string | undefined>> = { ...columns, ...text };
  const columnOf = (field: Field) =>
    given[field] ?? [field, usual[field]].find((name) => name && known.includes(name));
  const fieldsOf = (name: RowFormat) => [...kinds[name].needs, ...kinds[name].takes];
  const isMeant = (name: RowFormat) =>
    (format === "auto" || format === name) &&
    Object.keys(given).every((field) => (fieldsOf(name) as string[]).includes(field));
  const meant = ROW_FORMATS.filter(isMeant);
  if (meant.length === 0)
    throw new RowProblem(`no rows of the kind ${format} have ${Object.keys(given).join(" and ")}`);
  const found = meant.find((name) => kinds[name].needs.every(columnOf));
  const likely = found ?? (meant.includes("text") ? "text" : meant[0]!);
  const missing = kinds[likely].needs.find((field) => !columnOf(field));
  const absent = Object.values(given).find((name) => name && !known.includes(name)) ?? missing;
  const all = fieldsOf(likely).map((field) => [field, columnOf(field)!] as const);
  if (absent === undefined) return { format: likely, columns: all.filter(([, column]) => column) };
  throw new RowProblem(`no field "${absent}", only ${known.join(", ") || "none"}`, {
    hint: didYouMean(absent, known) ?? "--text-column or --columns prompt=…,completion=… name them",
  });
}

/** Makes a document of each row that a reader gives. */
export const rows = (read: (path: string, options: RowOptions) => AsyncIterable<Row>) =>
  async function* (path: string, options: RowOptions) {
    for await (const row of read(path, options)) yield* rowPieces(row, options);
  };

function rowPieces(row: Row, options: RowOptions): readonly Piece[] {
  const { place, value, problem } = row;
  try {
    if (problem) throw problem;
    if (!isRecord(value)) throw new RowProblem(`expected an object, found ${shown(value, 40)}`);
    const { make } = options;
    const missing = make?.needs.find((name) => value[name] == null);
    if (missing)
      throw new RowProblem(`no field "${missing}", only ${Object.keys(value).join(", ")}`);
    if (make) return make.pieces(value);
    const textColumn = row.textColumn ?? options.textColumn;
    const { format, columns } = recognised(Object.keys(value), { ...options, textColumn });
    const fields = Object.fromEntries(columns.map(([field, column]) => [field, value[column]]));
    const isNull = kinds[format].needs.some((field) => fields[field] == null);
    if (isNull && options.nullRows === "skip") return skipped(`${place}: its text is null`);
    const pieces = kinds[format].pieces(fields, options);
    const isChat = pieces[0]!.isRendered && format === "prompt-completion";
    const kind = isChat ? `${format} (messages)` : format;
    const { first = {} } = options;
    first.kind ??= kind;
    first.place ??= place;
    if (first.kind === kind) return pieces;
    throw new RowProblem(`a row of the kind ${kind}, where ${first.place} is ${first.kind}`, {
      hint: "keep kinds apart in files of their own, or say which columns count: --format",
    });
  } catch (error) {
    if (!(error instanceof RowProblem)) throw error;
    const message = `${place}: ${error.message}`;
    if (options.badRows === "skip") return skipped(message);
    throw new UserError(message, { hint: error.hint ?? "--skip-bad-rows leaves such rows out" });
  }
}

const skipped = (why: string): readonly Piece[] => [
  { text: "", isTarget: false, isLast: true, skipped: why },
];

/** What a field holds that has to be a string. */
export function textField(fields: JsonObject, name: string): string {
  const value = fields[name];
  if (typeof value === "string") return value;
  const found = value == null ? "null" : Array.isArray(value) ? "a list" : typeof value;
  throw new RowProblem(`field "${name}" is ${found}, expected a string`, {
    hint: value == null ? "--null-rows skip leaves such rows out" : undefined,
  });
}

/** ShareGPT's names of those who speak, and OpenAI's in their place. */
const speakers: Readonly<Record<string, string>> = {
  human: "user",
  gpt: "assistant",
  observation: "tool",
  ...Object.fromEntries(["user", "assistant", "system", "tool"].map((role) => [role, role])),
};

/** Messages as OpenAI has them, or ShareGPT; a list, or JSON of one, as columns of text have it. */
function messagesOf(value: unknown, name: Field): readonly Message[] {
  const list = typeof value === "string" ? jsonOr(value) : value;
  const problem = (at: string, what: string) =>
    new RowProblem(`field "${name}"${at} is no ${what}`, { hint: "docs/data.md has an example" });
  if (!Array.isArray(list) || list.length === 0) throw problem("", "list of messages");
  return list.map((message: unknown, i) => {
    if (!isRecord(message)) throw problem(`, message ${i + 1}`, "object");
    const { from, value: said, ...own } = message;
    const speaker = typeof from === "string" && { role: speakers[from], content: said };
    if (speaker && !speaker.role)
      throw problem(`, message ${i + 1}`, `message from ${Object.keys(speakers).join(", ")}`);
    // Columns have a field in all messages where it is in one: what is null there was never written.
    const written = Object.entries({ ...own, ...speaker }).filter(
      ([key, value]) => value !== null || key === "content",
    );
    const { role, ...rest } = Object.fromEntries(written);
    // Templates of models of text take a string, and Jinja would write the list itself.
    const parts = Array.isArray(rest["content"]) ? rest["content"] : [];
    const texts = parts.filter((part) => isRecord(part) && typeof part["text"] === "string");
    if (texts.length < parts.length) throw problem(`, message ${i + 1}`, "message of text alone");
    if (parts.length > 0) rest["content"] = texts.map(({ text }) => text as string).join("");
    if (typeof role === "string") return { role, ...rest };
    throw problem(`, message ${i + 1}`, "message with a role and content, or from and value");
  });
}

const jsonOr = (text: string) => orElse(() => JSON.parse(text) as unknown, text);

/** A conversation as its template writes it, in pieces that are answers and pieces that are not. */
function chat(messages: readonly Message[], fields: Fields, options: RowOptions, from = 0) {
  const { system, tools } = fields;
  const { template, lossOn = "answers" } = options;
  if (!template) throw noTemplate();
  // They mark what is looked for.
  if (/[\ufdd0-\ufdd2]/.test(JSON.stringify(messages)))
    throw new RowProblem("a message has a character from U+FDD0 to U+FDD2, which is none");
  const isTold = typeof system === "string" && system !== "" && messages[0]!.role !== "system";
  const all = isTold ? [{ role: "system", content: system }, ...messages] : messages;
  const variables =
    tools == null ? {} : { tools: typeof tools === "string" ? jsonOr(tools) : tools };
  const conversation = { messages: all, variables, from: from + all.length - messages.length };
  const { text, spans } = template.learn(conversation, lossOn);
  const pieceOf = (text: string, isTarget: boolean) => {
    return { text, isTarget, isLast: false, isRendered: true };
  };
  const borders = [0, ...spans.flat(), text.length];
  const pieces = borders.slice(1).map((end, i) => pieceOf(text.slice(borders[i], end), i % 2 > 0));
  return [...pieces.filter((piece) => piece.text), { ...pieceOf("", true), isLast: true }];
}
