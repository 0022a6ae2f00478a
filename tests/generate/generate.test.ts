// Generation: the author's tokens, streamed text, sampling that can be repeated, exports that are made once.

import assert from "node:assert/strict";
import { cp, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { Command } from "commander";
import { command as convertCommand } from "../../cli/commands/convert.ts";
import { command as generateCommand } from "../../cli/commands/generate.ts";
import { progress } from "../../cli/console.ts";
import type { CommandIo } from "../../cli/io.ts";
import { convert } from "../../src/export/convert.ts";
import { generate, openGenerator, samplingOf } from "../../src/generate/generate.ts";
import { maskTail } from "../../src/generate/streamer.ts";
import { sharedData, skipWithout, temporaryFolder } from "../helpers.ts";
import { fixture, refused } from "../export/fixture.ts";

const model = sharedData("stories260k");
const skip = skipWithout(model);
const sampling = { temperature: 0 };

test("greedy text of stories260k is its author's, piece by piece", { skip }, async (t) => {
  const cacheFolder = await temporaryFolder(t);
  const reference = await readFile(join(model, "greedy_reference_256.txt"), "utf8");
  const pieces: string[] = [];
  const onText = (text: string) => void pieces.push(text);
  const options = { model, cacheFolder, sampling };
  const whole = await generate({ ...options, prompt: "", maxNewTokens: 256, onText });
  assert.equal(whole.text, reference);
  assert.equal(whole.stop, "maxNewTokens");
  assert.equal(whole.tokens.length, 256);
  assert.equal(pieces.join(""), reference);
  assert.ok(pieces.length > 200, `${pieces.length} pieces`);

  // A continuation keeps the space between the prompt's last word and its own first.
  const prompt = "Once upon";
  const { text } = await generate({ ...options, prompt, maxNewTokens: 20 });
  assert.ok(reference.startsWith(prompt + text), text);

  const long = await generate({ ...options, prompt, maxNewTokens: 10_000 });
  assert.equal(long.stop, "context");
  assert.equal(long.numPromptTokens + long.tokens.length, 512);

  const [key, ...others] = await readdir(cacheFolder);
  assert.deepEqual(others, []);
  assert.ok((await stat(join(cacheFolder, key!, "onnx", "model.onnx"))).isFile());
  const kept = await generate({
    ...options,
    model: join(cacheFolder, key!),
    prompt,
    maxNewTokens: 20,
  });
  assert.equal(kept.text, text);
});

test("sampling repeats under a seed, and changes with it", { skip }, async (t) => {
  const cacheFolder = await temporaryFolder(t);
  const options = { model, cacheFolder, prompt: "Once upon a time", maxNewTokens: 30 };
  const sample = async (asked: object, seed = 1) =>
    (await generate({ ...options, sampling: asked, seed })).text;
  const first = await sample({ temperature: 1.2, topP: 0.95 });
  assert.equal(await sample({ temperature: 1.2, topP: 0.95 }), first);
  assert.notEqual(await sample({ temperature: 1.2, topP: 0.95 }, 2), first);
  const greedy = await sample({ temperature: 0 });
  assert.equal(await sample({ topK: 1 }), greedy);
  assert.equal(await sample({ topP: 0 }), greedy);
  // Where nothing is asked and the model's file says nothing, it is sampled all the same.
  assert.notEqual(await sample({}), greedy);
  assert.equal(await sample({}), await sample({}));
});

test("the model's generation_config.json counts where nothing is asked", () => {
  const read = (json: object, asked = {}) => {
    const { temperature, topK, topP, repetitionPenalty } = samplingOf("g.json", { ...json }, asked);
    return [temperature, topK, topP, repetitionPenalty];
  };
  assert.deepEqual(read({ eos_token_id: 2, top_k: null }), [0.8, 40, 0.95, 1]);
  // What such a file leaves out means what it means to transformers.
  const said = { do_sample: true, temperature: 0.6, top_p: 0.9, repetition_penalty: 1.1 };
  assert.deepEqual(read(said), [0.6, 50, 0.9, 1.1]);
  assert.deepEqual(read({ do_sample: true }), [1, 50, 1, 1]);
  assert.deepEqual(read(said, { temperature: 1, topK: 3, topP: 1 }), [1, 3, 1, 1.1]);
  assert.deepEqual(read(said, { temperature: 0, repetitionPenalty: 1 }), [0, 50, 0.9, 1]);
  assert.deepEqual(read({ do_sample: false }), [0, 50, 1, 1]);
  assert.deepEqual(read({ do_sample: false }, { temperature: 0.5 }), [0.5, 50, 1, 1]);
  assert.deepEqual(read({ do_sample: false }, { topK: 5 }), [1, 5, 1, 1]);
  assert.throws(() => read({ top_p: "0.9" }), refused(/g\.json: "top_p" must be a number/));
});

test("a folder's generation_config.json reaches the client", { skip }, async (t) => {
  const home = await temporaryFolder(t);
  const [cacheFolder, folder] = [join(home, "cache"), join(home, "model")];
  await cp(model, folder, { recursive: true });
  const write = (json: object) =>
    writeFile(join(folder, "generation_config.json"), JSON.stringify(json));
  const options = { model: folder, cacheFolder, prompt: "Once upon", maxNewTokens: 60 };
  await write({ do_sample: false, eos_token_id: 2 });
  const greedy = await generate(options);
  assert.deepEqual([greedy.seed, greedy.sampling.temperature], [undefined, 0]);
  const end = greedy.tokens[5]!;
  await write({ do_sample: false, eos_token_id: [2, end] });
  const ended = await generate(options);
  assert.equal(ended.stop, "end");
  assert.equal(ended.tokens.indexOf(end), ended.tokens.length - 1);
  // So great a penalty leaves no token twice.
  await write({ do_sample: false, eos_token_id: 2, repetition_penalty: 1e6 });
  const { tokens } = await generate({ ...options, maxNewTokens: 20 });
  assert.equal(new Set(tokens).size, tokens.length);
});

test("an abort ends the text after the present token", { skip }, async (t) => {
  const cacheFolder = await temporaryFolder(t);
  const stop = new AbortController();
  const { tokens, stop: reason } = await generate({
    model,
    sampling,
    cacheFolder,
    prompt: "Once",
    maxNewTokens: 400,
    signal: stop.signal,
    onText: () => stop.abort(),
  });
  assert.equal(reason, "interrupted");
  assert.ok(tokens.length < 10);
});

test("a long prompt is read up to an abort; no token follows", { skip }, async (t) => {
  const [cacheFolder, longer] = [await temporaryFolder(t), await temporaryFolder(t)];
  await cp(model, longer, { recursive: true });
  const path = join(longer, "config.json");
  const config = JSON.parse(await readFile(path, "utf8")) as object;
  const positions = { max_position_embeddings: 8192 };
  await writeFile(path, JSON.stringify({ ...config, ...positions }));
  const generator = await openGenerator({ model: longer, cacheFolder, sampling, maxNewTokens: 5 });
  t.after(() => generator.dispose());
  const prompt = "One day ".repeat(1500);
  const stop = new AbortController();
  // After the first piece: a piece holds the thread, so that a timer fires behind it.
  setTimeout(() => stop.abort(), 1);
  const { numPromptTokens, ...stopped } = await generator.answer(prompt, { signal: stop.signal });
  assert.ok(numPromptTokens > 2500, `${numPromptTokens} tokens`);
  assert.deepEqual([stopped.text, stopped.tokens, stopped.stop], ["", [], "interrupted"]);
});

test("an ONNX export is not quantised any more, and nothing is put on it", async (t) => {
  const out = join(await temporaryFolder(t), "export");
  await convert({ model: "tiny-gpt2", target: "onnx", out });
  const quantization = { bits: 4, block: 32, head: false } as const;
  for (const more of [{ quantization }, { adapter: out }])
    await assert.rejects(
      openGenerator({ model: out, ...more }),
      refused(/export is an ONNX export, which runs only as it is\n.*leave out/),
    );
});

test("a model without a tokenizer is refused by the name that it was given, before it is exported", async (t) => {
  const cacheFolder = await temporaryFolder(t);
  const { model } = fixture("gpt2");
  const options = { model, cacheFolder, prompt: "Once", maxNewTokens: 2 };
  const says = refused(/^\S+\/fixtures\/gpt2 holds no tokenizer\.json, which a prompt needs\n/);
  await assert.rejects(generate(options), says);
  assert.deepEqual(await readdir(cacheFolder), []);
});

test("the nucleus is the smallest set that reaches its share", () => {
  const masked = (probabilities: readonly number[], topK: number, topP: number) => {
    const logits = Float32Array.from(probabilities, Math.log);
    maskTail(logits, topK, topP);
    return [...logits.keys()].filter((i) => logits[i] !== -Infinity);
  };
  const probabilities = [0.1, 0.5, 0.15, 0.25];
  assert.deepEqual(masked(probabilities, 0, 0.7), [1, 3]);
  assert.deepEqual(masked(probabilities, 0, 0.8), [1, 2, 3]);
  assert.deepEqual(masked(probabilities, 0, 1), [0, 1, 2, 3]);
  assert.deepEqual(masked(probabilities, 0, 0), [1]);
  assert.deepEqual(masked(probabilities, 2, 1), [1, 3]);
  // 0.5 of the two that are left by top-k is two thirds.
  assert.deepEqual(masked(probabilities, 2, 0.6), [1]);
});

/** Runs one command line and gives what it printed. */
async function run(homeDir: string, ...args: string[]): Promise<string> {
  const printed: string[] = [];
  const stderr = { write: () => true };
  const io: CommandIo = {
    env: {},
    homeDir,
    packageRoot: "",
    stdout: { write: (text: string) => printed.push(text) },
    stderr,
    stdin: process.stdin,
    isTty: false,
    columns: 80,
    now: () => 0,
    progress: progress(stderr, { isTty: false, now: () => 0 }),
    exitCode: 0,
  };
  const program = new Command().exitOverride();
  convertCommand(program.command("convert"), io);
  generateCommand(program.command("generate"), io);
  await program.parseAsync(args, { from: "user" });
  return printed.join("");
}

test(
  "the commands: convert prints what it wrote, generate what it continued",
  { skip },
  async (t) => {
    const home = await temporaryFolder(t);
    const out = join(home, "out");
    const { model: base, adapter } = fixture("gpt2");
    const convertArgs = ["convert", "--model", base, "--adapter", adapter, "--to", "safetensors"];
    const table = await run(home, ...convertArgs, "--out", out);
    assert.match(table, /model\.safetensors +\d+(\.\d+)? kB/);
    assert.match(table, /checked: [\d,]+ values of weights, equal to the source's\nwritten: /);
    const json = JSON.parse(
      await run(home, ...convertArgs, "--out", out, "--force", "--json"),
    ) as object;
    assert.equal(Reflect.get(json, "target"), "safetensors");
    await assert.rejects(run(home, ...convertArgs.slice(0, -1), "gguf", "--out", out), /gguf/);

    const generateArgs = [
      "generate",
      "--model",
      model,
      "--prompt",
      "Once upon",
      "--max-new-tokens",
      "4",
    ];
    assert.equal(await run(home, ...generateArgs, "--temperature", "0"), " a time, there\n");
    const seeded = JSON.parse(await run(home, ...generateArgs, "--json", "--seed", "5")) as object;
    assert.equal(Reflect.get(seeded, "seed"), 5);
    const result = JSON.parse(await run(home, ...generateArgs, "--json", "--top-k", "1")) as object;
    assert.equal(Reflect.get(result, "text"), " a time, there");
    const greedy = [...generateArgs, "--temperature", "0"];
    await assert.rejects(run(home, ...greedy, "--seed", "1"), /no use for --seed/);
    assert.deepEqual(await readdir(join(home, ".cache", "ssa")), ["exports"]);
  },
);
