// Conversations: the text that a template makes, and exactly which of its tokens count, against texts marked by hand.
import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parquetWriteFile } from "hyparquet-writer";
import { Tokenizer as Reference } from "tokenizers";
import { loadChatTemplate } from "../../src/data/chat.ts";
import { type CorpusOptions, loadCorpus } from "../../src/data/corpus.ts";
import { findDataFiles, selectSplit } from "../../src/data/readers/files.ts";
import type { RowOptions } from "../../src/data/readers/rows.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { families, type Family } from "./chat-templates.ts";
import { kinds, withIds, writeTokenizer } from "./tiny-tokenizers.ts";
import { sharedFolder } from "../helpers.ts";

const { json: plain } = kinds["byte-level with Llama 3's expression"]!;

/** A folder with a tokenizer that knows a family's tokens, and its template. */
async function familyFolder({ template, tokens, added }: Family) {
  const { added_tokens: own, ...rest } = plain as { added_tokens: readonly object[] };
  const names = [...new Set([...Object.values(tokens), ...added])].filter(
    (name) => name !== "<|endoftext|>",
  );
  const more = names.map((content) => ({
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const json = withIds({ ...rest, added_tokens: [...own, ...more] });
  return { json, folder: await writeTokenizer(json, { ...tokens, chat_template: template }) };
}

async function fileOf(...rows: readonly unknown[]): Promise<string> {
  const path = join(sharedFolder(), "rows.jsonl");
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
  return path;
}

async function read(folder: string, path: string, options: CorpusOptions = {}, asked?: string) {
  const tokenizer = await loadTokenizer(folder);
  const template = await loadChatTemplate(tokenizer, asked);
  const instructTemplate = await loadChatTemplate(tokenizer, "alpaca");
  const split = selectSplit(await findDataFiles(path), "evaluation");
  const prefix = [0];
  return loadCorpus(split, tokenizer, { prefix, template, instructTemplate, ...options });
}

/** Compares a row's tokens and what of them counts with its text, in which what counts is in «». */
async function check(
  family: Family,
  row: unknown,
  marked: string,
  options?: RowOptions,
  asked?: string,
) {
  const { folder, json } = await familyFolder(family);
  const { texts, isRendered } = await read(folder, await fileOf(row), options, asked);
  const text = marked.replaceAll(/[«»]/g, "");
  const reference = Reference.fromString(JSON.stringify(json));
  const encoding = await reference.encode(text, null, { addSpecialTokens: false });
  const counts: boolean[] = [];
  let isInside = false;
  for (const character of marked)
    if (character === "«" || character === "»") isInside = character === "«";
    else counts.push(isInside);
  const expected = encoding
    .getOffsets()
    .map(([start, end]) => Number(counts.slice(start, end).includes(true)));
  assert.equal(isRendered, true);
  const { tokens, isTarget } = texts[0]!;
  assert.deepEqual([...tokens], encoding.getIds(), `tokens of ${text}`);
  assert.deepEqual([...(isTarget ?? Array.from(tokens, () => 1))], expected, marked);
}

const talk = [
  { role: "user", content: "The hen?" },
  { role: "assistant", content: "and the dog's eggs." },
  { role: "user", content: "Then?" },
  { role: "assistant", content: "  they ate\n" },
];
const told = [{ role: "system", content: "Be short." }, ...talk];

const expected: readonly (readonly [keyof typeof families, readonly object[], string])[] = [
  [
    "chatml",
    told,
    "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nThe hen?<|im_end|>\n<|im_start|>assistant\n«and the dog's eggs.<|im_end|>»\n" +
      "<|im_start|>user\nThen?<|im_end|>\n<|im_start|>assistant\n«  they ate\n<|im_end|>»\n",
  ],
  [
    "llama3",
    told,
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThe hen?<|eot_id|>" +
      "<|start_header_id|>assistant<|end_header_id|>\n\n«and the dog's eggs.<|eot_id|>»<|start_header_id|>user<|end_header_id|>\n\nThen?<|eot_id|>" +
      "<|start_header_id|>assistant<|end_header_id|>\n\n«they ate<|eot_id|>»",
  ],
  [
    "mistral",
    talk,
    "<s>[INST] The hen?[/INST]« and the dog's eggs.</s>»[INST] Then?[/INST]«   they ate\n</s>»",
  ],
  [
    // What it is told comes in front of the last turn, so that no conversation begins another.
    "mistral",
    [...told, { role: "user", content: "So?" }, { role: "assistant", content: "Yes." }],
    "<s>[INST] The hen?[/INST]« and the dog's eggs.</s>»[INST] Then?[/INST]«   they ate\n</s>»[INST] Be short.\n\nSo?[/INST]« Yes.</s>»",
  ],
  [
    "gemma",
    talk,
    "<bos><start_of_turn>user\nThe hen?<end_of_turn>\n<start_of_turn>model\n«and the dog's eggs.<end_of_turn>»\n" +
      "<start_of_turn>user\nThen?<end_of_turn>\n<start_of_turn>model\n«they ate<end_of_turn>»\n",
  ],
  [
    "phi3",
    told,
    "<|system|>\nBe short.<|end|>\n<|user|>\nThe hen?<|end|>\n<|assistant|>\n«and the dog's eggs.<|end|>»\n" +
      "<|user|>\nThen?<|end|>\n<|assistant|>\n«  they ate\n<|end|>»\n<|endoftext|>",
  ],
  [
    // Of earlier turns it takes the thoughts away, before the last it puts an empty one.
    "qwen3",
    [
      { role: "user", content: "The hen?" },
      { role: "assistant", content: "<think>\na dog\n</think>\n\nand the eggs" },
      { role: "user", content: "Then?" },
      { role: "assistant", content: "<think>\nthey\n</think>\n\nate" },
      { role: "user", content: "So?" },
      { role: "assistant", content: "Yes." },
    ],
    "<|im_start|>user\nThe hen?<|im_end|>\n<|im_start|>assistant\n«and the eggs<|im_end|>»\n" +
      "<|im_start|>user\nThen?<|im_end|>\n<|im_start|>assistant\n«ate<|im_end|>»\n" +
      "<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nYes.<|im_end|>»\n",
  ],
  [
    "qwen3",
    [
      { role: "user", content: "The hen?" },
      { role: "assistant", content: "<think>\na dog\n</think>\n\nand" },
    ],
    "<|im_start|>user\nThe hen?<|im_end|>\n<|im_start|>assistant\n«<think>\na dog\n</think>\n\nand<|im_end|>»\n",
  ],
  [
    "chatml",
    [
      { role: "user", content: "The hen?" },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ type: "function", function: { name: "hens", arguments: { n: 1 } } }],
      },
      { role: "tool", content: "12" },
      { role: "assistant", content: "Twelve." },
    ],
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nThe hen?<|im_end|>\n<|im_start|>assistant\n«<tool_call>\n" +
      '{"name": "hens", "arguments": {"n": 1}}\n</tool_call><|im_end|>»\n<|im_start|>tool\n12<|im_end|>\n<|im_start|>assistant\n«Twelve.<|im_end|>»\n',
  ],
];
for (const [family, messages, marked] of expected)
  test(`${family}: ${messages.length} messages, of which the answers and what ends them count`, () =>
    check(families[family], { messages }, marked));

test("a template that marks its answers is taken at its word", async () => {
  const template = `{% for message in messages %}
{%- if message.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}
    {%- generation %}
{{ message.content + '<|im_end|>' }}
    {%- endgeneration %}{{ '\\n' }}
{%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}`;
  const family = { ...families.chatml, template };
  const turn = (said: string, answer: string) =>
    `<|im_start|>user\n${said}<|im_end|>\n<|im_start|>assistant\n${answer}\n`;
  const first = "and the dog's eggs.<|im_end|>";
  const [whole, last] = [`«${first}»`, "«  they ate\n<|im_end|>»"];
  const row = { messages: talk };
  await check(family, row, turn("The hen?", whole) + turn("Then?", last));
  await check(family, row, turn("The hen?", first) + turn("Then?", last), {
    lossOn: "last",
  });
});

test("the last answer alone, everything, or what no weight takes out", async () => {
  const marked = (first: string, last: string, [open, close] = ["", ""]) =>
    `${open}<bos><start_of_turn>user\nThe hen?<end_of_turn>\n<start_of_turn>model\n${first}<end_of_turn>` +
    `${first.startsWith("«") ? "»" : ""}\n<start_of_turn>user\nThen?<end_of_turn>\n<start_of_turn>model\n` +
    `${last}<end_of_turn>${last.startsWith("«") ? "»" : ""}\n${close}`;
  const [first, last] = ["and the dog's eggs.", "they ate"];
  const row = { messages: talk };
  await check(families.gemma, row, marked(first, `«${last}`), { lossOn: "last" });
  await check(families.gemma, row, marked(first, last, ["«", "»"]), { lossOn: "all" });
  const weighed = talk.map((message, i) => ({ ...message, ...(i === 3 && { weight: 0 }) }));
  await check(families.gemma, { messages: weighed }, marked(`«${first}`, last));
});

test("ShareGPT, prompts in messages, instructions, other columns: each is such a conversation", async () => {
  const text =
    "<bos><start_of_turn>user\nThe hen?<end_of_turn>\n<start_of_turn>model\nand<end_of_turn>\n" +
    "<start_of_turn>user\nThen?<end_of_turn>\n<start_of_turn>model\n«the dog<end_of_turn>»\n";
  const messages = ["The hen?", "and", "Then?", "the dog"].map((content, i) => ({
    role: i % 2 ? "assistant" : "user",
    content,
  }));
  const [prompt, completion] = [messages.slice(0, 3), messages.slice(3)];
  await check(families.gemma, { prompt, completion }, text);
  const conversations = messages.map(({ role, content }) => ({
    from: role === "user" ? "human" : "gpt",
    value: content,
  }));
  const both = text.replace("and<end_of_turn>", "«and<end_of_turn>»");
  await check(families.gemma, { conversations }, both);
  const parts = messages.map(({ role, content }) => ({
    role,
    content: [content.slice(0, 2), content.slice(2)].map((text) => ({ type: "text", text })),
  }));
  await check(families.gemma, { messages: parts }, both);
  await check(families.gemma, { talk: JSON.stringify(messages) }, both, {
    columns: { messages: "talk" },
  });
  const one =
    "<bos><start_of_turn>user\nThe hen?\n\nTwo.<end_of_turn>\n<start_of_turn>model\n«and<end_of_turn>»\n";
  await check(families.gemma, { instruction: "The hen?", input: "Two.", output: "and" }, one);
  await check(families.gemma, { q: "The hen?\n\nTwo.", a: "and" }, one, {
    format: "instruct",
    columns: { instruction: "q", output: "a" },
  });
});

test("models without a template: Alpaca's form for instructions, a clear choice for conversations", async () => {
  const bare: Family = { template: "", tokens: { eos_token: "</s>" }, added: [] };
  const { folder } = await familyFolder(bare);
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(bare.tokens));
  const path = await fileOf({ messages: talk });
  await assert.rejects(read(folder, path), {
    name: "UserError",
    message: "conversations need a chat template, and the model has none",
    hint: /--chat-template chatml, plain, alpaca, or a file/,
  });
  await assert.rejects(read(folder, path, {}, "chatlm"), { hint: 'did you mean "chatml"?' });
  const named = { ...bare, template: "unused" };
  const task = "Below is an instruction that describes a task";
  const request =
    "Write a response that appropriately completes the request.\n\n### Instruction:\nThe hen?";
  const row = { instruction: "The hen?", input: "", output: "and" };
  await check(named, row, `${task}. ${request}\n\n### Response:\n«and</s>»`, {}, "alpaca");
  await check(
    named,
    { ...row, input: "Two." },
    `${task}, paired with an input that provides further context. ${request}\n\n### Input:\nTwo.\n\n### Response:\n«and</s>»`,
    {},
    "alpaca",
  );
  await check(
    named,
    { messages: told.slice(0, 3) },
    "System: Be short.\n\nUser: The hen?\n\nAssistant:« and the dog's eggs.</s>»",
    {},
    "plain",
  );
  await check(
    families.qwen3,
    { messages: talk.slice(0, 2) },
    "<|im_start|>user\nThe hen?<|im_end|>\n<|im_start|>assistant\n«and the dog's eggs.<|im_end|>»\n",
    {},
    "chatml",
  );
  await assert.rejects(read(folder, path, {}, "chatml"), {
    message: "the vocabulary has no <|im_end|>, which ends the answers of chatml",
    hint: "--chat-template plain is for any vocabulary",
  });
});

test("rows that are no such rows are named with their places, or left out and counted", async () => {
  const { folder } = await familyFolder(families.gemma);
  const [good, answer] = [{ messages: talk }, { role: "assistant", content: "Yes." }];
  const system = { role: "system", content: "Be short." };
  const cases: readonly (readonly [unknown, RegExp])[] = [
    [{ text: "the hen" }, /rows\.jsonl:2: a row of the kind text, where .*rows\.jsonl:1 is chat$/],
    [{ messages: "the hen" }, /rows\.jsonl:2: field "messages" is no list of messages$/],
    [{ messages: [{ role: "user" }, 1] }, /:2: field "messages", message 2 is no object$/],
    [{ conversations: [{ from: "bird", value: "x" }] }, /message 1 is no message from human, gpt/],
    [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, /message of text alone/],
    [{ messages: [{ content: "x" }] }, /message 1 is no message with a role and content/],
    [
      { messages: talk.slice(0, 1) },
      /:2: no message of the assistant, so there is nothing to learn/,
    ],
    [{ messages: [system, answer] }, /:2: the chat template refuses it: no system role/],
    [{ messages: [...talk, { ...answer, content: "\ufdd2" }] }, /:2: .*U\+FDD0/],
    [{ question: "x" }, /:2: no field "text", only question$/],
    [["x"], /:2: expected an object, found \["x"\]$/],
  ];
  for (const [bad, message] of cases) {
    const path = await fileOf(good, bad, good);
    await assert.rejects(read(folder, path), { name: "UserError", message });
    const notes: string[] = [];
    const options = { badRows: "skip" as const, onNote: (note: string) => notes.push(note) };
    assert.equal((await read(folder, path, options)).texts.length, 2);
    assert.match(notes.join(), new RegExp(`rows left out: 1, first .*${message.source}`));
  }
  const one = await fileOf(["x"], { text: 1 });
  await assert.rejects(read(folder, one, { badRows: "skip" }), {
    name: "UserError",
    message: /rows\.jsonl holds no text: all rows, 2, are left out$/,
    hint: /^the first: .*rows\.jsonl:1: expected an object, found \["x"\]$/,
  });
  const empty = await fileOf({ messages: [talk[0], { role: "assistant", content: null }] });
  await assert.rejects(read(folder, empty, {}, "plain"), {
    message: /:1: message 2 has no content \(null\), the chat template refuses it: /,
  });
  const broken = await fileOf(good);
  await writeFile(broken, `${JSON.stringify(good)}\n{"messages":[\n`);
  await assert.rejects(read(folder, broken), { message: /rows\.jsonl:2: expected a line of JSON/ });
  assert.equal((await read(folder, broken, { badRows: "skip" })).texts.length, 1);
});

test("columns that are named have to be there, and of use", async () => {
  const { folder } = await familyFolder(families.gemma);
  const path = await fileOf({ q: "the hen", a: "and", text: "the dog" });
  const pair = { prompt: "q", completion: "a" };
  const { texts } = await read(folder, path, { columns: pair });
  assert.ok([...texts[0]!.isTarget!].includes(0));
  const cases: readonly (readonly [RowOptions, RegExp])[] = [
    [{ columns: { ...pair, tools: "t" } }, /:1: no field "t", only q, a, text$/],
    [{ columns: { text: "body" } }, /:1: no field "body"/],
    [{ format: "chat", textColumn: "q" }, /:1: no rows of the kind chat have text$/],
    [{ format: "prompt-completion" }, /:1: no field "prompt", only/],
    [
      { columns: { prompt: "q", output: "a" } },
      /:1: no rows of the kind auto have prompt and output/,
    ],
  ];
  for (const [options, message] of cases)
    await assert.rejects(read(folder, path, options), { name: "UserError", message });
});

test("parquet: lists of messages are a column like any other", async () => {
  const path = join(sharedFolder(), "rows.parquet");
  const columnData = [{ name: "messages", data: [talk, talk.slice(0, 2)], type: "JSON" as const }];
  parquetWriteFile({ filename: path, columnData });
  const { folder } = await familyFolder(families.gemma);
  const rows = await fileOf({ messages: talk }, { messages: talk.slice(0, 2) });
  assert.deepEqual((await read(folder, path)).texts, (await read(folder, rows)).texts);
});

test("templates in files of their own win, and one for tools is taken where there are tools", async () => {
  const { folder } = await familyFolder(families.gemma);
  const named = [
    { name: "default", template: "D{{ messages[0].content }}" },
    { name: "tool_use", template: "T{{ tools[0].name }}" },
  ];
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: named }));
  const tokenizer = await loadTokenizer(folder);
  const messages = [{ role: "user", content: "x" }];
  const variables = { tools: [{ name: "t" }] };
  const rendered = async (asked?: string, now?: Date) =>
    (await loadChatTemplate(tokenizer, asked, now))!;
  assert.equal((await rendered()).render({ messages }), "Dx");
  assert.equal((await rendered()).render({ messages, variables }), "Tt");
  assert.equal((await rendered("default")).render({ messages, variables }), "Dx");
  const dated = "{{ strftime_now('%d %b %Y') }}{{ [1, 'é'] | tojson }}{{ tools is none }}";
  await writeFile(join(folder, "chat_template.jinja"), dated);
  const now = new Date(2031, 8, 3);
  assert.equal((await rendered(undefined, now)).render({ messages }), `03 Sep 2031[1, "é"]true`);
  assert.equal((await rendered()).render({ messages }), `26 Jul 2024[1, "é"]true`);
  await writeFile(join(folder, "chat_template.jinja"), "{% if %}");
  const unread = await rendered();
  assert.throws(() => unread.render({ messages }), {
    name: "UserError",
    message: /cannot be read/,
  });
});

test("a template that writes the date makes the same data every day, from one cache", async (t) => {
  const { folder } = await familyFolder(families.chatml);
  const dated = `{{ strftime_now('%d %b %Y') }}${families.chatml.template}`;
  await writeFile(join(folder, "chat_template.jinja"), dated);
  const path = await fileOf({ messages: talk });
  const cacheFolder = sharedFolder();
  t.mock.timers.enable({ apis: ["Date"], now: new Date(2026, 10, 28) });
  const first = await read(folder, path, { cacheFolder });
  t.mock.timers.setTime(new Date(2026, 10, 29).getTime());
  const next = await read(folder, path, { cacheFolder });
  assert.equal(next.dataSha256, first.dataSha256);
  assert.equal((await readdir(cacheFolder)).length, 1);
});
