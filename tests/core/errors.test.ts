// The two kinds of failure, and the word that a typist probably meant.

import assert from "node:assert/strict";
import { test } from "node:test";
import { invariant, messageOf, nearest, UserError } from "../../src/core/errors.ts";

test("a user's error carries a hint, an exit code and a cause", () => {
  const plain = new UserError("expected a, found b");
  assert.deepEqual([plain.name, plain.hint, plain.exitCode], ["UserError", undefined, 2]);
  assert.equal("cause" in plain, false);
  const cause = new Error("below");
  const full = new UserError("failed", { hint: "try again", exitCode: 1, cause });
  assert.deepEqual([full.hint, full.exitCode, full.cause], ["try again", 1, cause]);
});

test("what a message quotes moves no cursor and has an end; its own lines stay lines", () => {
  const { message, hint } = new UserError("found\n  \x1b[2J\x9b1m\0\t", { hint: "\x07" });
  assert.equal(message, "found\n  \\u001b[2J\\u009b1m\\u0000\\u0009");
  assert.equal(hint, "\\u0007");
  assert.ok(new UserError("\0".repeat(1e6)).message.length < 5000);
});

test("a broken invariant is an internal error, not a user's", () => {
  invariant(1, "never told");
  assert.throws(() => invariant(undefined, "two and two"), /^Error: internal: two and two$/);
  assert.equal(messageOf(new Error("a")), "a");
  assert.equal(messageOf(3), "3");
});

test("the nearest known word is found within a third of the length, and none beyond", () => {
  const known = ["learningRate", "batchSize", "steps", "seed"];
  assert.equal(nearest("learning_rate", known), "learningRate");
  assert.equal(nearest("batchsize", known), "batchSize");
  assert.equal(nearest("step", known), "steps");
  assert.equal(nearest("temperature", known), undefined);
  assert.equal(nearest("steps", []), undefined);
});
