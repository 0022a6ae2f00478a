// Runs another's code where it can be ended, and can end: a module's generator that may loop for ever, or take all the
// memory that there is, which no thread outlives, in a process of its own.

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { UserError } from "./errors.ts";

/** What the process answers: at first that it is there, then a value each time it is asked. */
export interface Answer<Value> {
  readonly value?: Value;
  readonly isDone?: boolean;
  readonly failure?: { readonly message: string; readonly hint?: string | undefined };
}

/**
 * `guarded("./name", "f", argument, import.meta.url, …)` gives what the generator gives. It is ended where it takes
 * longer than `seconds` for one value; its errors become the user's. Argument and values can be cloned.
 */
export async function* guarded<Value>(
  name: string,
  functionName: string,
  argument: unknown,
  caller: string,
  { seconds, task }: { readonly seconds: number; readonly task: string },
): AsyncGenerator<Value> {
  const extension = caller.slice(caller.lastIndexOf("."));
  const module = new URL(name + extension, caller).href;
  const script = new URL(`./guarded-process${extension}`, import.meta.url);
  const child = fork(fileURLToPath(script), {
    execArgv: extension === ".ts" ? ["--import", import.meta.resolve("tsx")] : [],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "ignore", "ipc"],
    detached: true, // Ctrl+C is this process's matter
  });
  const end = once(child, "exit").then(([code, signal]: (string | number | null)[]) => {
    const ending = signal ?? `code ${code}`;
    throw new UserError(`${task} ended with ${ending}`, { hint: "the file is damaged" });
  });
  end.catch(() => undefined);
  const answer = async (signal?: AbortSignal) => {
    const message = once(child, "message", { ...(signal && { signal }) });
    return ((await Promise.race([message, end])) as [Answer<Value>])[0];
  };
  try {
    child.send([module, functionName, argument]);
    await answer();
    for (;;) {
      const limit = AbortSignal.timeout(Math.ceil(1000 * seconds));
      child.send("next");
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
    child.kill("SIGKILL");
  }
}
