// A function in a process of its own: its value comes back, and whatever becomes of that process, this one lives on.

import assert from "node:assert/strict";
import { test } from "node:test";
import { callInProcess } from "../../src/core/subprocess.ts";

const call = (name: string, argument: unknown = null, seconds = 60) =>
  callInProcess<number>("./subprocess-functions", name, argument, import.meta.url, seconds);

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
