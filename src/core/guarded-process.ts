// The process of guarded.ts.

import { on } from "node:events";
import { messageOf, UserError } from "./errors.ts";
import type { Answer } from "./guarded.ts";

const requests = on(process, "message");
const { value: task } = (await requests.next()) as { readonly value: [[string, string, unknown]] };
const [module, functionName, argument] = task[0];
const functions = (await import(module)) as Record<string, (argument: unknown) => AsyncGenerator>;
const values = functions[functionName]!(argument);

async function next(): Promise<Answer<unknown>> {
  try {
    const { value, done } = await values.next();
    return { value: value as unknown, isDone: done === true };
  } catch (error) {
    const hint = error instanceof UserError ? error.hint : undefined;
    return { failure: { message: messageOf(error), hint } };
  }
}

process.send!({});
for await (const _ of requests) process.send!(await next());
