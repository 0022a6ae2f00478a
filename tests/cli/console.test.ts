// The progress line on a terminal and in a pipe, tables within their columns, numbers as people read them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { styleText } from "node:util";
import * as shown from "../../cli/console.ts";
import * as format from "../../src/core/format.ts";
import type { CommandIo } from "../../cli/io.ts";
import { openLog } from "../../cli/run-text.ts";

/** Something to write to that remembers. */
function paper(columns?: number) {
  const written: string[] = [];
  return { columns, write: (text: string) => written.push(text), written };
}

/** What a terminal would show after the writes: finished lines, then the line under the cursor. */
function screen(written: readonly string[]): string[] {
  return written
    .join("")
    .split("\n")
    .map((line) => line.split("\x1b[2K").at(-1)!.replaceAll("\r", ""));
}

test("a terminal shows one line, redrawn at most ten times a second", () => {
  let time = 0;
  const output = paper();
  const line = shown.progress(output, { isTty: true, now: () => time });
  line.update(["step 1/9"], 0.5);
  time = 99;
  line.update(["step 2/9"]);
  time = 100;
  line.update(["step 3/9"]);
  assert.deepEqual(output.written, ["[==========          ]  step 1/9", "\r\x1b[2K", "step 3/9"]);
  line.line("saved");
  assert.deepEqual(screen(output.written), ["saved", "step 3/9"]);
  line.done();
  assert.deepEqual(screen(output.written), ["saved", ""]);
});

test("the time left is that of steps, whatever was scored between them; no first step tells it", () => {
  let time = 0;
  const output = paper();
  const now = () => time;
  const progress = shown.progress(output, { isTty: false, now });
  const log = openLog({ progress, now } as CommandIo, "human");
  const step = (number: number) => {
    const rates = {
      lossNats: 1,
      learningRate: 0.1,
      gradNorm: 1,
      numTokens: 9,
      tokensPerSecond: 10,
    };
    log.event({ kind: "step", step: number, steps: 100, ...rates });
  };
  step(1);
  time = 1000;
  step(2);
  log.event({ kind: "scored", phase: "evaluation", windows: 1, of: 1 });
  time = 600_000;
  step(3);
  const told = output.written.filter((line) => line.startsWith("step"));
  assert.equal(told[0], "step 1/100  loss 1.0000  lr 1.0e-1  10 tok/s\n");
  assert.match(told.at(-1)!, /^step 3\/100 .* 1m 37s left\n$/);
});

test("fields past the edge are left out, the first is cut", () => {
  const output = paper(20);
  const line = shown.progress(output, { isTty: true, now: () => 0 });
  line.update(["step 100/200", "loss 3.21", "x"]);
  line.done();
  line.update(["a very long name of a model"]);
  assert.deepEqual(
    output.written.filter((text) => !text.startsWith("\r")),
    ["step 100/200", "a very lo…f a model"],
  );
});

test("a pipe gets plain lines, seldom, and no bar", () => {
  let time = 0;
  const output = paper();
  const line = shown.progress(output, { isTty: false, now: () => time });
  for (; time <= 20_000; time += 4000) line.update([`t ${time}`], 0.5);
  line.line("saved");
  line.done();
  assert.deepEqual(output.written, ["t 0\n", "t 12000\n", "saved\n"]);
});

test("control characters in names do not reach the terminal", () => {
  const output = paper();
  shown.progress(output, { isTty: true, now: () => 0 }).update(["a\x1b[2Jb\nc\u009b"]);
  assert.deepEqual(output.written, ["a\\u001b[2Jb\\u000ac\\u009b"]);
});

test("a stream lets through lines and our own colours alone", () => {
  const name = "a\x1b[31mb\x1b[8mc\x1b]0;title\x07\r\n\td\u009b2J";
  const written = (forced: string) => {
    const before = process.env["FORCE_COLOR"];
    process.env["FORCE_COLOR"] = forced;
    const output = paper();
    shown.filtered(output).write(styleText("red", "x") + name);
    if (before === undefined) delete process.env["FORCE_COLOR"];
    else process.env["FORCE_COLOR"] = before;
    return output.written;
  };
  const escaped = "\\u001b[8mc\\u001b]0;title\\u0007\\u000d\n\td\\u009b2J";
  assert.deepEqual(written("0"), [`xa\\u001b[31mb${escaped}`]);
  assert.deepEqual(written("1"), [`\x1b[31mx\x1b[39ma\x1b[31mb${escaped}`]);
});

test("tables: numbers to the right, text to the left", () => {
  const rows = [
    ["before", "144.60", ""],
    ["after", "63.80", "-55.9%"],
  ];
  assert.equal(
    shown.table(["", "perplexity", "change"], rows),
    ["        perplexity  change", "before      144.60", "after        63.80  -55.9%"].join("\n"),
  );
  assert.equal(shown.table([], [["a", "1"]]), "a  1");
  assert.equal(shown.table([], []), "");
});

test("a name stays whole, and no number is cut in two", () => {
  const header = ["name", "state"];
  assert.equal(
    shown.table(header, [["compared-runs-seed0", "finished"]], 20).split("\n")[1],
    "compared-runs-seed0  finished",
  );
  const long = {
    longer: "121 texts than the context: 1 (4,500), 2 (4,883)",
    model: "a/path/of/it",
  };
  assert.deepEqual(shown.facts(long, 40).split("\n"), [
    "longer  121 texts than the context: 1 …",
    "model   a/path/of/it",
  ]);
});

test("a table gives way to the terminal's width", () => {
  const text = shown.table(["tensor", "shape"], [["model.layers.0.self_attn.q", "2,048"]], 24);
  assert.deepEqual(text.split("\n"), ["tensor             shape", "model.la…f_attn.q  2,048"]);
});

test("numbers read well", () => {
  const cases: [string, string][] = [
    [format.integer(18_864), "18,864"],
    [format.parameters(424), "424"],
    [format.parameters(999_999), "999,999"],
    [format.parameters(124_439_808), "124.4M"],
    [format.parameters(1_100_048_384), "1.100B"],
    [format.bytes(12), "12 B"],
    [format.bytes(999_999), "1.00 MB"],
    [format.bytes(2.05e9), "2.05 GB"],
    [format.duration(0.35), "0.35 s"],
    [format.duration(9.96), "10 s"],
    [format.duration(59.7), "1m 00s"],
    [format.duration(185), "3m 05s"],
    [format.duration(3599.9), "1h 00m"],
    [format.duration(7620), "2h 07m"],
    [format.duration(273_600), "3d 04h"],
    [format.duration(Number.POSITIVE_INFINITY), "?"],
    [format.rate(3.21), "3.2 tok/s"],
    [format.rate(1234.4), "1,234 tok/s"],
    [format.perplexity(63.8019), "63.802"],
    [format.perplexity(1234.56), "1,234.6"],
    [format.perplexity(4.2e7), "4.20e+7"],
    [format.perplexity(Number.POSITIVE_INFINITY), "Infinity"],
    [format.change(-55.87), "-55.9%"],
    [format.change(0.5), "+0.50%"],
    [format.change(0.0152), "+0.015%"],
    [format.change(0), "+0%"],
  ];
  for (const [actual, expected] of cases) assert.equal(actual, expected);
});
