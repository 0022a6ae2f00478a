// The progress line on a terminal and in a pipe, tables within their columns, numbers as people read them.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as format from "../../cli/console.ts";

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
  const line = format.progress(output, { isTty: true, now: () => time });
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

test("fields past the edge are left out, the first is cut", () => {
  const output = paper(20);
  const line = format.progress(output, { isTty: true, now: () => 0 });
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
  const line = format.progress(output, { isTty: false, now: () => time });
  for (; time <= 20_000; time += 4000) line.update([`t ${time}`], 0.5);
  line.line("saved");
  line.done();
  assert.deepEqual(output.written, ["t 0\n", "t 12000\n", "saved\n"]);
});

test("control characters in names do not reach the terminal", () => {
  const output = paper();
  format.progress(output, { isTty: true, now: () => 0 }).update(["a\x1b[2Jb\nc\u009b"]);
  assert.deepEqual(output.written, ["a\\u001b[2Jb\\u000ac\\u009b"]);
});

test("a stream lets through lines and our own colours alone", () => {
  const name = "a\x1b[31mb\x1b[8mc\x1b]0;title\x07\r\n\td\u009b2J";
  const [plain, colored] = [paper(), paper()];
  format.filtered(plain, false).write(name);
  format.filtered(colored, true).write(format.style(true).red("x") + name);
  const escaped = "\\u001b[8mc\\u001b]0;title\\u0007\\u000d\n\td\\u009b2J";
  assert.deepEqual(plain.written, [`a\\u001b[31mb${escaped}`]);
  assert.deepEqual(colored.written, [`\x1b[31mx\x1b[0ma\x1b[31mb${escaped}`]);
});

test("tables: numbers to the right, text to the left", () => {
  const rows = [
    ["before", "144.60", ""],
    ["after", "63.80", "-55.9%"],
  ];
  assert.equal(
    format.table(["", "perplexity", "change"], rows),
    ["        perplexity  change", "before      144.60", "after        63.80  -55.9%"].join("\n"),
  );
  assert.equal(format.table([], [["a", "1"]]), "a  1");
  assert.equal(format.table([], []), "");
});

test("a table gives way to the terminal's width", () => {
  const text = format.table(["tensor", "shape"], [["model.layers.0.self_attn.q", "2,048"]], 24);
  assert.deepEqual(text.split("\n"), ["tensor             shape", "model.la…f_attn.q  2,048"]);
});

test("colour obeys the terminal and the environment", () => {
  const isColored = (isTty: boolean, env: Record<string, string>) =>
    format.style(format.hasColor(isTty, env)).red("x") !== "x";
  assert.deepEqual(
    [
      isColored(true, {}),
      isColored(false, {}),
      isColored(true, { NO_COLOR: "1" }),
      isColored(true, { NO_COLOR: "" }),
      isColored(true, { TERM: "dumb" }),
      isColored(false, { FORCE_COLOR: "1" }),
    ],
    [true, false, false, true, false, true],
  );
});

test("numbers read well", () => {
  const cases: [string, string][] = [
    [format.formatInteger(18_864), "18,864"],
    [format.formatParameters(424), "424"],
    [format.formatParameters(999_999), "999,999"],
    [format.formatParameters(124_439_808), "124.4M"],
    [format.formatParameters(1_100_048_384), "1.100B"],
    [format.formatBytes(12), "12 B"],
    [format.formatBytes(999_999), "1.00 MB"],
    [format.formatBytes(2.05e9), "2.05 GB"],
    [format.formatDuration(0.35), "0.35 s"],
    [format.formatDuration(9.96), "10 s"],
    [format.formatDuration(59.7), "1m 00s"],
    [format.formatDuration(185), "3m 05s"],
    [format.formatDuration(3599.9), "1h 00m"],
    [format.formatDuration(7620), "2h 07m"],
    [format.formatDuration(273_600), "3d 04h"],
    [format.formatDuration(Number.POSITIVE_INFINITY), "?"],
    [format.formatRate(3.21), "3.2 tok/s"],
    [format.formatRate(1234.4), "1,234 tok/s"],
    [format.formatPerplexity(63.8019), "63.802"],
    [format.formatPerplexity(1234.56), "1,234.6"],
    [format.formatPerplexity(4.2e7), "4.20e+7"],
    [format.formatPerplexity(Number.POSITIVE_INFINITY), "Infinity"],
    [format.formatPercent(-55.87, { isChange: true }), "-55.9%"],
    [format.formatPercent(0.5, { isChange: true }), "+0.50%"],
    [format.formatPercent(0.0152), "0.015%"],
    [format.formatPercent(0), "0%"],
  ];
  for (const [actual, expected] of cases) assert.equal(actual, expected);
});
