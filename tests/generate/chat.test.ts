// Conversations in the hands of @huggingface/transformers: the same texts and tokens as ours; prompts from everywhere.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { converse } from "../../cli/converse.ts";
import { processIo } from "../../cli/io.ts";
import { loadChatTemplate } from "../../src/data/chat.ts";
import type { Message } from "../../src/data/chat-answers.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizer.ts";
import { openClientTokenizer } from "../../src/export/client.ts";
import { convert } from "../../src/export/convert.ts";
import { generate } from "../../src/generate/generate.ts";
import { openModel } from "../../src/model/open.ts";
import { opening, placesOf } from "../../src/model/places.ts";
import { evaluate } from "../../src/run/evaluate.ts";
import { fineTune } from "../../src/run/fine-tune.ts";
import { jsonLines, onlyJson, ssa } from "../cli/program.ts";
import { families } from "../data/chat-templates.ts";
import { encode, kinds, withIds, writeTokenizer } from "../data/tiny-tokenizers.ts";
import { sharedFolder, temporaryFolder } from "../helpers.ts";

const talk: readonly Message[] = [
  { role: "user", content: "The hen?" },
  { role: "assistant", content: "and the dog's eggs." },
  { role: "user", content: "Then?" },
];

for (const [name, { template, tokens, added }] of Object.entries(families))
  test(`${name}: transformers makes the same text and tokens of a conversation`, async () => {
    const { added_tokens: own, ...rest } = kinds["byte-level (GPT-2)"]!.json as {
      readonly added_tokens: readonly object[];
    };
    const names = new Set([...Object.values<string>(tokens), ...added]);
    names.delete("<|endoftext|>");
    const more = Array.from(names, (content) => ({ content, special: true, normalized: false }));
    const json = withIds({ ...rest, added_tokens: [...own, ...more] });
    const config = {
      ...tokens,
      tokenizer_class: "PreTrainedTokenizerFast",
      chat_template: template,
    };
    const folder = await writeTokenizer(json, config);
    const client = await openClientTokenizer(folder);
    const tokenizer = await loadTokenizer(folder);
    const ours = (await loadChatTemplate(tokenizer))!;
    for (const [messages, adds] of [
      [talk, true],
      [talk.slice(0, 2), false],
    ] as const) {
      const options = { tokenize: false, add_generation_prompt: adds };
      const conversation = messages as { role: string; content: string }[];
      const text = client.apply_chat_template(conversation, options) as string;
      assert.equal(ours.render({ messages }, adds), text);
      const { input_ids: ids } = client(text, { add_special_tokens: false }) as {
        input_ids: { data: BigInt64Array };
      };
      assert.deepEqual(Array.from(ids.data, Number), [...encode(tokenizer, text)]);
    }
    const end = name === "phi3" ? "<|end|>" : name === "gemma" ? "<end_of_turn>" : tokens.eos_token;
    assert.equal(ours.endOfTurn(), end);
  });

test("a conversation on a terminal: each answer is to all that was said, until /exit", async () => {
  const heard: string[] = [];
  const typed = new PassThrough();
  const io = { ...processIo(), stdin: typed, stderr: { write: () => true }, isTty: false };
  const talking = converse(io, new AbortController().signal, async (messages) => {
    heard.push(messages.map(({ role, content }) => `${role}: ${String(content)}`).join("; "));
    return Promise.resolve({ text: ` answer ${heard.length}` });
  });
  typed.end("one\n\ntwo\n/exit\nthree\n");
  await talking;
  assert.deepEqual(heard, ["user: one", "user: one; assistant: answer 1; user: two"]);
});

test("prompts from files and lines of JSON, by the same template as the data", async () => {
  const home = sharedFolder();
  const write = async (name: string, text: string) => {
    await writeFile(join(home, name), text);
    return name;
  };
  const rows = [{ messages: talk.slice(0, 2) }, { messages: talk.slice(0, 2) }, { text: "no" }];
  const data = await write("rows.jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));
  const options = { cwd: home, env: { SSA_CACHE: join(home, "cache"), SSA_DEVICE: "cpu" } };
  const named = ["--chat-template", "plain"];
  const plan = [
    "finetune",
    "--base",
    "tiny-gpt2",
    "--data",
    data,
    "--eval-data",
    data,
    "--dry-run",
  ];
  const refused = await ssa([...plan, ...named], options);
  assert.equal(refused.code, 2);
  assert.match(
    refused.stderr,
    /rows\.jsonl:3: a row of the kind text, where rows\.jsonl:1 is chat/,
  );
  const taken = [...plan, ...named, "--skip-bad-rows"];
  const { stdout, stderr } = await ssa(taken, {
    ...options,
    env: { ...options.env, NO_COLOR: "1" },
  });
  assert.match(stderr, /rows left out: 1, first rows\.jsonl:3: a row of the kind text/);
  assert.match(stdout, /User: The hen\?\n\nAssistant:« and the dog's eggs\.<\|endoftext\|>»\n$/);
  const { example } = onlyJson((await ssa([...taken, "--json"], options)).stdout);
  const tokens = example as { id: number; text: string; counts: boolean }[];
  const counted = tokens.filter(({ counts }) => counts).map(({ text }) => text);
  assert.equal(counted.join(""), " and the dog's eggs.<|endoftext|>");

  const greedy = [
    "generate",
    "--model",
    "tiny-gpt2",
    "--temperature",
    "0",
    "--max-new-tokens",
    "5",
  ];
  const prompts = [
    { id: 7, prompt: "User: The hen?\n\nAssistant:" },
    { id: 7, messages: talk.slice(0, 1) },
  ];
  const lines = await write(
    "prompts.jsonl",
    prompts.map((each) => JSON.stringify(each)).join("\n"),
  );
  const [plain, chat] = jsonLines(
    (await ssa([...greedy, ...named, "--prompts", lines], options)).stdout,
  );
  assert.deepEqual({ ...plain, ...prompts[1] }, { ...prompts[0], ...chat });
  const asked = await write("prompt.txt", "The hen?\n");
  const answer = await ssa([...greedy, ...named, "--chat", "--prompt-file", asked], options);
  assert.equal(answer.stdout, `${String(chat!["text"])}\n`);
  const mistyped = await write("mistyped.jsonl", '{"prompt":"The hen"}\n{"promt":"The"}');
  const none = await ssa([...greedy, ...named, "--prompts", mistyped], options);
  assert.deepEqual([none.code, none.stdout], [2, ""]);
  assert.match(none.stderr, /mistyped.jsonl:2: expected {"prompt"/);
  const latin = join(home, "latin.txt");
  await writeFile(latin, Uint8Array.of(0xe9, 0xff));
  const bytes = await ssa([...greedy, "--prompt-file", latin], options);
  assert.deepEqual([bytes.code, bytes.stdout], [2, ""]);
  assert.match(bytes.stderr, /latin.txt is not UTF-8 text/);

  const choice = "{{ 'The whale' if strftime_now('%Y') == '2024' else 'A ship and his' }}";
  const dated = await write("dated.jinja", choice);
  const asks = [{ prompt: "A ship and his" }, { prompt: "The whale" }, { messages: talk }];
  const days = await write("days.jsonl", asks.map((each) => JSON.stringify(each)).join("\n"));
  const said = await ssa([...greedy, "--chat-template", dated, "--prompts", days], options);
  const [today, then, now] = jsonLines(said.stdout).map(({ text }) => text);
  assert.equal(now, today);
  assert.notEqual(now, then);
  const nothing = await ssa([...greedy, "--chat"], options);
  assert.deepEqual([nothing.code, nothing.stdout], [2, ""]);
  assert.match(nothing.stderr, /there is nothing to continue\nhint: give --prompt TEXT/);
});

test("an adapter keeps the template that it was trained with, for all that opens it", async (t) => {
  const home = await temporaryFolder(t);
  const [data, out] = [join(home, "rows.jsonl"), join(home, "run")];
  await writeFile(data, `${JSON.stringify({ messages: talk.slice(0, 2) })}\n`.repeat(16));
  const where = { cacheDir: join(home, "cache"), device: "cpu" };
  const small = { evalData: data, steps: 1, context: 64, reportWindows: 1, evalWindows: 1 };
  const how = { ...where, ...small, out, chatTemplate: "plain", final: "adapter" } as const;
  await fineTune({ base: "tiny-gpt2", data, ...how });
  const final = join(out, "final");
  const opened = await openModel(final, opening(placesOf(where)));
  const source = await readFile(opened.chatTemplate!, "utf8");
  assert.match(source, /Assistant:/);
  await evaluate({ ...where, model: final, data });
  for (const target of ["adapter", "safetensors"] as const) {
    const converted = join(home, target);
    await convert({ ...opening(placesOf(where)), model: final, target, out: converted });
    assert.equal(await readFile(join(converted, "chat_template.jinja"), "utf8"), source);
  }
  const asked = { prompt: talk.slice(0, 1), cacheFolder: join(home, "exports"), maxNewTokens: 1 };
  const { numPromptTokens } = await generate({
    ...opening(placesOf(where)),
    ...asked,
    model: final,
  });
  const { ids } = (await loadTokenizer(opened.folder)).encode([
    { text: "User: The hen?\n\nAssistant:", isTarget: true, isLast: true },
  ]);
  assert.equal(numPromptTokens, ids.length);
});
