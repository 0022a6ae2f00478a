// `ssa eval --tasks`: several at once, from data sets of a hub on loopback as they are there, and the gate on answers.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parquetWriteFile } from "hyparquet-writer";
import { temporaryFolder } from "../helpers.ts";
import { startHub } from "../hub-server.ts";
import { assertRefused, onlyJson, ssa } from "./program.ts";

const fixtures = join(import.meta.dirname, "../fixtures/tasks");
type Rows = readonly Record<string, unknown>[];
const rowsOf = async (name: string) =>
  (await readFile(join(fixtures, `${name}.jsonl`), "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

const text = { type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" } as const;
const list = (name: string) =>
  [
    { name, repetition_type: "OPTIONAL", num_children: 1, converted_type: "LIST" },
    { name: "list", repetition_type: "REPEATED", num_children: 1 },
    { ...text, name: "element" },
  ] as const;
const optional = { repetition_type: "OPTIONAL" } as const;

async function parquet(folder: string, rows: Rows, columns: readonly (readonly object[])[]) {
  const filename = join(folder, "rows.parquet");
  const names = columns.map(([column]) => (column as { name: string }).name);
  parquetWriteFile({
    filename,
    columnData: names.map((name) => ({ name, data: rows.map((row) => row[name]) })),
    schema: [{ name: "root", num_children: columns.length }, ...columns.flat()] as never,
  });
  return readFile(filename);
}

test("--tasks without --data: each from its own data set, in one document", async (t) => {
  const folder = await temporaryFolder(t);
  const piqa = (await rowsOf("piqa")).map((row) => ({
    ...row,
    label: BigInt(Number(row["label"])),
  }));
  const strings = (...names: string[]) => names.map((name) => [{ ...text, name }]);
  const answers = [
    ...strings("goal", "sol1", "sol2"),
    [{ ...optional, name: "label", type: "INT64" }],
  ];
  const hidden = piqa.map((row) => ({ ...row, label: -1n }));
  const choices = [
    { ...optional, name: "choices", num_children: 2 },
    ...list("text"),
    ...list("label"),
  ];
  const arc = [...strings("id", "question"), choices, ...strings("answerKey")];
  const easy = await rowsOf("arc_easy");
  const hub = await startHub({
    datasets: {
      "baber/piqa": {
        "data/validation-00000-of-00001.parquet": await parquet(folder, piqa, answers),
        "data/test-00000-of-00001.parquet": await parquet(folder, hidden, answers),
      },
      "allenai/ai2_arc": {
        "ARC-Easy/test-00000-of-00001.parquet": await parquet(folder, easy, arc),
        "ARC-Easy/validation-00000-of-00001.parquet": await parquet(folder, easy.slice(0, 1), arc),
      },
    },
  });
  t.after(() => hub.close());
  const env = {
    HF_ENDPOINT: hub.url,
    HF_HOME: join(folder, "hf"),
    SSA_CACHE: join(folder, "cache"),
    HF_HUB_OFFLINE: "0",
  };
  const run = (...args: string[]) =>
    ssa(["eval", "--model", "tiny-gpt2", "--device", "cpu", ...args], { cwd: folder, env });
  const of = async (...args: string[]) => {
    const { stdout, stderr } = await run("--json", ...args);
    return onlyJson(stdout || stderr);
  };
  const { results } = await of("--tasks", "piqa,arc_easy");
  // The same as from lines of JSON.
  assert.deepEqual(results, {
    piqa: await of("--task", "piqa", "--data", join(fixtures, "piqa.jsonl")),
    arc_easy: await of("--task", "arc_easy", "--data", join(fixtures, "arc_easy.jsonl")),
  });
  // The split that counts is taken of data that is named, too.
  const named = await of("--tasks", "arc_easy", "--data", "allenai/ai2_arc:ARC-Easy");
  assert.deepEqual(named, (results as Record<string, unknown>)["arc_easy"]);

  await writeFile(join(folder, "sea.txt"), "The sea is wide and the whale is in it.");
  const table = await run("--tasks", "perplexity,piqa", "--data", "sea.txt");
  assert.match(
    table.stdout,
    /^task +perplexity$.*^perplexity +[\d.]+$.*^task +piqa$.*^acc +[\d.]+ ±/ms,
  );

  const tuned = (...args: string[]) =>
    ssa(["finetune", "--out", join(folder, "run"), "--json", ...args], { cwd: folder, env });
  const recipe = ["--steps", "2", "--context", "32", "--report-windows", "4", "--device", "cpu"];
  const asked = ["--base", "tiny-gpt2", "--data", "moby-dick", "--tasks", "piqa,passkey"];
  const { stdout, stderr } = await tuned(...asked, ...recipe, "--learning-rate", "3");
  const report = onlyJson(stdout || stderr);
  const answered = report["tasks"] as Record<string, Record<string, Record<string, unknown>>>;
  for (const name of ["piqa", "passkey"]) {
    const { before, after, change } = answered[name]!;
    assert.deepEqual(before, await of("--task", name));
    const final = await run("--json", "--model", join(folder, "run"), "--task", name);
    assert.deepEqual(after, onlyJson(final.stdout));
    if (name === "passkey") continue; // of many documents
    // Of the model against its base, asked together.
    const both = ["--model", join(folder, "run"), "--task", name, "--baseline", "tiny-gpt2"];
    const { comparison } = onlyJson((await run("--json", ...both)).stdout);
    assert.deepEqual(comparison, { ...change, baseline: before });
  }
  const { change } = answered["piqa"]!;
  assert.deepEqual(
    [change!["baselineAcc"], change!["won"], change!["verdict"]],
    [1, 0, "cannot tell"],
  );
  // Told again, with a line for each.
  const again = await ssa(["finetune", "--resume", "--out", join(folder, "run")], { cwd: folder });
  assert.match(again.stdout, /^piqa +1\.0000 +[01]\.\d+ +0 +\d +[01]\.\d+ +cannot tell$/m);
  assertRefused(await tuned(...asked.slice(0, 4), "--tasks", "perplexity"), /tasks .*: expected/);

  const base = join(folder, "base.json");
  await run("--task", "piqa", "--save-baseline", base);
  const gate = await run("--task", "piqa", "--baseline", base);
  assert.match(gate.stdout, /^OK: acc 1\.0000, baseline 1\.0000 \(0 won, 0 lost, p = 1\.0\)$/m);
  const refused: readonly (readonly [string[], RegExp])[] = [
    [["--tasks", "piqa,boolq", "--baseline", base], /a baseline is of one task\s+hint: .*--task/],
    [["--tasks", "piqa,boolq", "--data", "sea.txt"], /--data is of one task/],
    [["--task", "piqa", "--baseline", base, "--max-increase", "1%"], /--max-increase is of perp/],
    [["--task", "piqa", "--baseline", base, "--windows", "1"], /not comparable .*numTokens/],
    [["--task", "piqa", "--data", "baber/piqa@test"], /"label" names none of 2 choices: -1/],
    [["--task", "piqa", "--passkey-trials", "2"], /--passkey-… is of a task/],
    [[], /perplexity needs data to measure on/],
  ];
  for (const [args, message] of refused) assertRefused(await run(...args), message);
});
