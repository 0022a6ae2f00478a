// Mistakes of every kind: exit 2 (1 for work that failed), a sentence that says what to do, never a stack.

import { copyFile, mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { temporaryFolder } from "../helpers.ts";
import { fixture, writeTokens } from "../run/small-run.ts";
import { assertRefused, type Ended, ssa } from "./program.ts";

test("mistakes end with one sentence and exit code 2", { timeout: 300_000 }, async (t) => {
  const cwd = await temporaryFolder(t);
  await writeTokens(cwd);
  const files: Readonly<Record<string, string | Uint8Array>> = {
    "text.txt": "Once upon a time.\n",
    "empty.bin": "",
    "big.bin": Uint8Array.of(1, 0, 255, 255),
  };
  for (const [name, content] of Object.entries(files)) await writeFile(join(cwd, name), content);
  const plain = ["config.json", "model.safetensors"];
  for (const folder of ["base", "cut", "bert", "full"]) {
    await mkdir(join(cwd, folder));
    for (const file of plain) await copyFile(join(fixture(), file), join(cwd, folder, file));
  }
  await truncate(join(cwd, "cut", "model.safetensors"), 3000);
  await writeFile(join(cwd, "bert", "config.json"), '{"model_type":"bert"}');
  await mkdir(join(cwd, "nothing"));
  await symlink("loop.bin", join(cwd, "loop.bin"));

  const evaluate = "eval --model base --data val.bin --device cpu";
  const finetune = "finetune --base base --data . --device cpu --max-added-share 0.5 --out run";
  const cases: readonly (readonly [command: string, message: RegExp, code?: number])[] = [
    ["", /Usage: ssa/],
    ["finetun", /unknown command 'finetun'\s+\(Did you mean finetune\?\)/],
    [`${evaluate} --contxt 8`, /unknown option '--contxt'\s+\(Did you mean --context\?\)/],
    ["eval --model base", /perplexity needs data to measure on\s+hint: .*--data/],
    ["inspect", /missing required argument 'model'/],
    ["inspect base --layer 1", /--layer and --head are of a text\s+hint: give one: --text/],
    ["inspect base --text word", /base holds no tokenizer.json/],
    ["inspect text.txt", /"text.txt" is a file, expected the folder of a model/],
    ["eval --model nothing --data val.bin", /"nothing" has no config.json/],
    [
      "eval --model bert --data val.bin",
      /"bert" is not supported\s+hint: supported: gpt2, gpt_neo, gpt_neox, opt, gemma2/,
    ],
    ["eval --model cut --data val.bin", /cut\/model.safetensors is not a valid safetensors file/],
    ["eval --model base --data text.txt", /base holds no tokenizer.json/],
    [
      "eval --model base --data text.txt --format chat",
      /text\.txt has no rows, which .* kind chat\s+hint: .*leave out --format/,
    ],
    [`${evaluate} --columns messages`, /columns .*expected names of columns by field/],
    ["eval --model base --data empty.bin", /empty.bin holds no tokens/],
    ["eval --model base --data big.bin", /token 1 .* is 65535, the vocabulary has 41/],
    ["eval --model base --data none.bin", /no data at none.bin/],
    [`${evaluate} --context 17`, /context of 17 .* does not fit .*\s+hint: .* takes 2 to 16/],
    [`${evaluate} --context 8 --stride 9`, /a stride of 9 does not fit a context of 8/],
    [`${evaluate} --convention gptq --stride 3`, /gptq has a stride of 16 here, found 3/],
    [`${evaluate} --save-baseline text.txt`, /text.txt exists and is no saved baseline/],
    ["eval --model base --data loop.bin", /loop.bin: its links lead in a circle/],
    [
      `${finetune} --context 16 --batch-size 100000`,
      /batch of 100000 windows of 16 tokens has 1600000 of them.*\s+hint: lower --batch-size/,
    ],
    [`${finetune} --tensorboard text.txt`, /cannot write text.txt: a file is in its place/, 1],
    [`${evaluate} --device cdua`, /device \(--device\): .*found "cdua"; did you mean cuda\?/],
    [`${evaluate} --convention hf-strde`, /convention .* did you mean hf-stride\?/],
    [`${evaluate} --context ten --windows 0`, /2 mistakes:\s+context .*"ten"\s+windows .*found 0/],
    [
      `${evaluate} --temperatures {"query":{"logn":1}}`,
      /temperatures.query.logn.*: expected false or a number above 1, .* found 1/,
    ],
    [
      `${evaluate} --temperatures {"value":{"yarn":4}}`,
      /temperatures.value.yarn.*: expected false: it is of logits, on the query alone, found 4/,
    ],
    [`${evaluate} --temperatures logn`, /expected query, key, value, each {token, .*found "logn"/],
    [
      `${finetune} --set temperatures={"query":{"logn":16},"value":{}}`,
      /no parameters: there is nothing to train\s+hint: measure .* ssa eval --temperatures/,
    ],
    [`${evaluate} --max-increase half`, /expected a percentage such as 0.5%, found "half"/],
    ["eval --model base --data mistyped/corpus.txt", /no data at mistyped/],
    [
      "convert --model base --to onxn --out x",
      /target "onxn" is not known\s+hint: did you mean "onnx"/,
    ],
    [
      "convert --model base --to onnx --out x --max-shard-size 5",
      /\(--max-shard-size\): expected a size such as 2GB or 500MB, found/,
    ],
    ["convert --model base --to onnx --out x --dtype fp17", /dtype .* did you mean fp16\?/],
    [`${evaluate} --adapter nothing`, /nothing is no adapter: it has neither/],
    [`${evaluate} --baseline none.json`, /cannot read none.json/],
    [`${evaluate} --baseline base/config.json`, /neither a report.json nor a saved baseline/],
    [`${evaluate} --max-increase 1%`, /--max-increase needs a --baseline/],
    [`${evaluate} --save-baseline nowhere/b.json`, /there is no folder nowhere/],
    ["generate --model base --prompt a --device abacus", /device \(--device\): expected auto, cpu/],
    ["generate --model base --prompt a --device tfjs", /only ONNX Runtime runs an exported model/],
    ["generate --model base --promt a", /unknown option '--promt'\s+\(Did you mean --prompt\?\)/],
    ["finetune --base base", /data: missing/],
    ["finetune --recipe compare", /compare.yaml is a comparison.*\s+hint: ssa compare --recipe/],
    ["compare", /expected a --recipe with arms, or the folders of finished runs/],
    ["compare --recipe demo", /arms: missing; expected names/],
    ["compare --recipe compare --shard 3/2", /--shard\): expected i\/n .*found "3\/2"/],
    ["compare --recipe compare --seeds 1,1", /seeds \(--seeds\): expected different whole numbers/],
    ["compare base", /base is not the folder of a finished run/],
    ["compare base --recipe compare", /expected the folders of runs or a --recipe, found both/],
    ["report", /expected the folder of a run or of a comparison, found none/],
    ["report base --output text.txt", /text.txt exists and is no page of ssa's/],
    ["report base", /base is not the folder of a run: no recipe.yaml\s+hint: name a folder/],
    ["report base base", /base is not the folder of a finished run/],
    ["finetune --resume", /no run under checkpoints\/ to resume/],
    [`${finetune} --recipe demmo`, /demmo: neither a recipe file nor .*\s+hint: .*demo/],
    [`${finetune} --tune norm`, /tune \(--tune\): expected .*did you mean norms\?/],
    [`${finetune} --set tune=norm`, /tune \(--set\): expected .*did you mean norms\?/],
    [`${finetune} --set tune`, /--set: expected path=value, found "tune"/],
    [`${finetune} --max-added-share 0.005`, /more than 0.5 %\s+hint: .*--max-added-share/],
    [`${finetune}/../full`, /exists and is not empty\s+hint: continue it with --resume/],
    [`${finetune} --out text.txt`, /text.txt is a file/],
    [
      `${finetune} --out text.txt/run`,
      /cannot write text.txt.run: a part of its path is a file/,
      1,
    ],
  ];
  const ended: (readonly [Ended, RegExp, number | undefined])[] = [];
  const waiting = [...cases];
  const work = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [command, message, code] = next;
      const args = command.split(" ").filter((word) => word !== "");
      ended.push([await ssa(args, { cwd }), message, code]);
    }
  };
  await Promise.all([work(), work(), work()]);
  for (const [result, message, code] of ended) assertRefused(result, message, code);
});
