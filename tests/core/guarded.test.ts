import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { guarded } from "../../src/core/guarded.ts";

type Ending = "end" | "fail" | "loop" | "crash";

/** Called in a process by the tests below. */
export async function* count({ to, ending }: { to: number; ending: Ending }) {
  for (let i = 0; i < to; i++) yield i;
  if (ending === "fail") throw new UserError("no more", { hint: "count less" });
  if (ending === "loop") for (;;);
  if (ending === "crash") process.abort();
}

async function collect(ending: Ending, into: number[] = []): Promise<number[]> {
  const options = { seconds: 0.5, task: "counting" };
  const argument = { to: 3, ending };
  const values = guarded<number>("./guarded.test", "count", argument, import.meta.url, options);
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
