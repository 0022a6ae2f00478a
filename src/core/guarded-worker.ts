// The worker side of guarded.ts.

import { parentPort, workerData } from "node:worker_threads";
import { messageOf, UserError } from "./errors.ts";
import type { Answer } from "./guarded.ts";

const { module, functionName, argument } = workerData as {
  readonly module: string;
  readonly functionName: string;
  readonly argument: unknown;
};
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

parentPort!.on("message", () => void next().then((answer) => parentPort!.postMessage(answer)));
parentPort!.postMessage({});
