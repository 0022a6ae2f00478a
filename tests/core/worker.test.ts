// A generator in a worker and a function in a process of its own: their values come back, and whatever becomes of the
// worker or the process, this one lives on.

import assert from "node:assert/strict";
import { test } from "node:test";
import { callInProcess, guarded } from "../../src/core/worker.ts";
import type { Ending } from "./worker-functions.ts";

const call = (name: string, argument: unknown = null, seconds = 60) =>
  callInProcess<number>("./worker-functions", name, argument, import.meta.url, seconds);

test("the value comes back", async () => {
  const { value, ending } = await call("double", 21);
  assert.equal(value, 42);
  assert.equal(ending, "exit code 0");
});

test("a crash gives no value, but how it ended and what was said", async () => {
  const { value, ending, stderr } = await call("crash");
  assert.equal(value, undefined);
  assert.equal(ending, process.platform === "win32" ? "exit code 134" : "SIGABRT");
  assert.match(stderr, /about to crash/);
});

test("an exception gives no value, but its message", async () => {
  const { value, ending, stderr } = await call("fail");
  assert.equal(value, undefined);
  assert.equal(ending, "exit code 1");
  assert.match(stderr, /thrown inside/);
});

test("what does not answer in time is ended", async () => {
  const { value, ending } = await call("hang", null, 2);
  assert.equal(value, undefined);
  assert.equal(ending, "SIGKILL");
});

async function collect(ending: Ending, into: number[] = []): Promise<number[]> {
  const options = { seconds: 0.5, task: "counting" };
  const argument = { to: 3, ending };
  const values = guarded<number>("./worker-functions", "count", argument, import.meta.url, options);
  for await (const value of values) into.push(value);
  return into;
}

test("a guarded generator gives its values, and its errors with their hints", async () => {
  assert.deepEqual(await collect("end"), [0, 1, 2]);
  await assert.rejects(collect("fail"), {
    name: "UserError",
    message: "no more",
    hint: "count less",
  });
});

test("one that loops for ever is ended, after the values that it gave", async () => {
  const values: number[] = [];
  await assert.rejects(collect("loop", values), {
    name: "UserError",
    message: /^counting came to no end in 1 seconds$/,
  });
  assert.deepEqual(values, [0, 1, 2]);
});

test("one that ends its process is an error like any other", async () => {
  const values: number[] = [];
  await assert.rejects(collect("crash", values), {
    name: "UserError",
    message: /^counting ended with /,
    hint: /damaged/,
  });
  assert.deepEqual(values, [0, 1, 2]);
});
