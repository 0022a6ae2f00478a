// Modules that run elsewhere: in a worker thread, or where code that loops for ever, crashes or writes to its process's
// streams can be ended. Each is named as seen from its caller, in the built program and in a development checkout alike.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { Worker, type WorkerOptions } from "node:worker_threads";
import { messageOf, UserError } from "./errors.ts";

/** The expression that imports a module: Node 20 hands a loader down to neither workers nor processes. */
function importOf(name: string, caller: string): string {
  const extension = caller.slice(caller.lastIndexOf("."));
  const load = `import("${new URL(name + extension, caller).href}")`;
  if (extension !== ".ts") return load;
  // Resolved from here: code without a file would look for it from the working folder.
  const loader = import.meta.resolve("tsx/esm/api");
  return `import("${loader}").then(({ register }) => (register(), ${load}))`;
}

/** `startWorker("./name", import.meta.url)` runs name.js, or name.ts through tsx where the caller is TypeScript. */
export function startWorker(name: string, caller: string, options: WorkerOptions = {}): Worker {
  return new Worker(importOf(name, caller), { ...options, eval: true });
}

/**
 * `guarded("./name", "f", argument, import.meta.url, …)` gives what the generator `f` of the module gives, from a worker
 * that is ended where it takes longer than `seconds` for one value; its errors become the user's. Argument and values
 * are what can be cloned.
 */
export async function* guarded<Value>(
  name: string,
  functionName: string,
  argument: unknown,
  caller: string,
  { seconds, task }: { readonly seconds: number; readonly task: string },
): AsyncGenerator<Value> {
  const script = `const { parentPort, workerData } = require("node:worker_threads");
    ${importOf(name, caller)}.then(({ ${functionName}: f }) => {
      const values = f(workerData);
      parentPort.on("message", async () => parentPort.postMessage(await values.next()));
      parentPort.postMessage("loaded");
    });`;
  const worker = new Worker(script, { workerData: argument, eval: true });
  try {
    await once(worker, "message");
    for (;;) {
      const limit = AbortSignal.timeout(Math.ceil(1000 * seconds));
      worker.postMessage("next");
      const answer = once(worker, "message", { signal: limit }).catch((error: unknown) => {
        const { hint } = error as Partial<UserError>;
        if (!limit.aborted) throw new UserError(messageOf(error), { hint });
        throw new UserError(`${task} came to no end in ${Math.ceil(seconds)} seconds`, {
          hint: "the file is damaged",
        });
      });
      const [{ value, done }] = (await answer) as [IteratorResult<Value, undefined>];
      if (done) return;
      yield value;
    }
  } finally {
    await worker.terminate();
  }
}

export interface SubprocessResult<Value> {
  /** What the function returned; absent where the process ended before. */
  readonly value?: Value;
  readonly stderr: string;
  /** How the process ended, in words. */
  readonly ending: string;
}

/** Calls the function `f` of a module in a process of its own; argument and result are what JSON can hold. */
export function callInProcess<Value>(
  name: string,
  functionName: string,
  argument: unknown,
  caller: string,
  timeoutSeconds: number,
): Promise<SubprocessResult<Value>> {
  const script = `const { ${functionName}: f } = await ${importOf(name, caller)};
    process.send({ value: await f(${JSON.stringify(argument)}) });`;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      timeout: timeoutSeconds * 1000,
      killSignal: "SIGKILL",
    });
    let stderr = "";
    let message: { readonly value?: Value } = {};
    child.stderr!.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("message", (received) => (message = received as { value: Value }));
    child.on("error", reject);
    child.on("close", (code, signal) =>
      resolve({ ...message, stderr, ending: signal ?? `exit code ${code}` }),
    );
  });
}
