// Runs another's code that may loop for ever where it can be ended: a module's generator, in a worker.

import { once } from "node:events";
import { UserError } from "./errors.ts";
import { startWorker } from "./worker.ts";

/** What the worker answers: at first that it is there, then a value each time it is asked. */
export interface Answer<Value> {
  readonly value?: Value;
  readonly isDone?: boolean;
  readonly failure?: { readonly message: string; readonly hint?: string | undefined };
}

/**
 * `guarded("./name", "f", argument, import.meta.url, …)` gives what the generator gives. It is ended where it takes
 * longer than `seconds` for one value; its errors become the user's. Argument and values are what can be cloned.
 */
export async function* guarded<Value>(
  name: string,
  functionName: string,
  argument: unknown,
  caller: string,
  { seconds, task }: { readonly seconds: number; readonly task: string },
): AsyncGenerator<Value> {
  const module = new URL(name + caller.slice(caller.lastIndexOf(".")), caller).href;
  const worker = startWorker("./guarded-worker", import.meta.url, {
    workerData: { module, functionName, argument },
  });
  const answer = async (signal?: AbortSignal) =>
    ((await once(worker, "message", { ...(signal && { signal }) })) as [Answer<Value>])[0];
  try {
    await answer();
    for (;;) {
      const limit = AbortSignal.timeout(Math.ceil(1000 * seconds));
      worker.postMessage("next");
      const { value, isDone, failure } = await answer(limit).catch((error: unknown) => {
        if (!limit.aborted) throw error;
        throw new UserError(`${task} came to no end in ${Math.ceil(seconds)} seconds`, {
          hint: "the file is damaged",
        });
      });
      if (failure) throw new UserError(failure.message, { hint: failure.hint });
      if (isDone) return;
      yield value as Value;
    }
  } finally {
    await worker.terminate();
  }
}
