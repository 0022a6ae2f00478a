// Modules that run elsewhere: in a worker thread, or where code that loops for ever, crashes or writes to its process's
// streams can be ended. Each is named as seen from its caller, in the built program and in a development checkout alike.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { parentPort, Worker } from "node:worker_threads";
import { invariant, messageOf, UserError } from "./errors.ts";

/** The expression that imports a module: Node 20 hands a loader down to neither workers nor processes. */
function importOf(name: string, caller: string): string {
  const extension = caller.slice(caller.lastIndexOf("."));
  const load = `import("${new URL(name + extension, caller).href}")`;
  if (extension !== ".ts") return load;
  // Resolved from here: code without a file would look for it from the working folder.
  const loader = import.meta.resolve("tsx/esm/api");
  return `import("${loader}").then(({ register }) => (register(), ${load}))`;
}

type Reply = Readonly<{ answer?: unknown; error?: string }>;

/**
 * `openQueue("./name", import.meta.url, …)` runs name.js, or name.ts through tsx where the caller is TypeScript, in a
 * thread that answers requests in their order; `failed` makes an error of what it says, or of how it ended.
 */
export function openQueue<Answer extends (request: never) => Promise<unknown>>(
  name: string,
  caller: string,
  workerData?: unknown,
  failed: (said: string) => Error = (said) => new UserError(said),
) {
  const worker = new Worker(importOf(name, caller), { workerData, eval: true });
  const waiting: ((reply: Reply) => void)[] = [];
  let end: Reply | undefined;
  let isClosing = false;
  const ask = (request: Parameters<Answer>[0] | null) =>
    new Promise((resolve, reject) => {
      const settle = ({ answer, error }: Reply) =>
        error === undefined ? resolve(answer) : reject(failed(error));
      if (end) return settle(end);
      worker.ref();
      // What is asked later waits for the end: begun, it would be torn down.
      if (!isClosing) worker.postMessage(request);
      waiting.push(settle);
    }) as ReturnType<Answer>;
  const onEnd = (error: string) => {
    end ??= { error };
    for (const settle of waiting.splice(0)) settle(end);
  };
  worker.unref();
  worker.on("message", (reply: Reply) => {
    const settle = waiting.shift()!;
    if (waiting.length === 0) worker.unref();
    settle(reply);
  });
  worker.on("error", (error) => onEnd(messageOf(error)));
  worker.on("exit", (code) => onEnd(`its thread ended with code ${code}`));
  return {
    ask,
    numWaiting: () => waiting.length,
    /** After the last reply: a worker must not be torn down inside native code, nor while it loads it. */
    close: async () => {
      const last = ask(null);
      isClosing = true;
      await last.catch(() => undefined);
      worker.ref();
      await worker.terminate();
    },
  };
}

/** The other side, in the module that the queue runs: one request at a time. */
export function answerQueue(answerOf: (request: never) => Promise<unknown>): void {
  invariant(parentPort, "this module is a worker's");
  const port = parentPort;
  const reply = (message: Reply) => port.postMessage(message);
  let last = Promise.resolve();
  port.on("message", (request: unknown) => {
    last = last
      .then(() => (request === null ? undefined : answerOf(request as never)))
      .then((answer) => reply({ answer }))
      .catch((error: unknown) => reply({ error: messageOf(error) }));
  });
}

/**
 * `guarded("./name", "f", argument, import.meta.url, …)` gives what the generator `f` of the module gives. It runs in a
 * process, since no thread outlives another's running out of memory, and is ended where it takes longer than `seconds`
 * for one value; its errors become the user's. The argument is what JSON can hold, values are what can be cloned.
 */
export async function* guarded<Value>(
  name: string,
  functionName: string,
  argument: unknown,
  caller: string,
  { seconds, task }: { readonly seconds: number; readonly task: string },
): AsyncGenerator<Value> {
  // A loop hears nothing of a parent that was killed, so a thread beside it watches.
  const script = `import self from "node:process";
    import { Worker } from "node:worker_threads";
    new Worker(\`const { ppid } = process;
      setInterval(() => process.ppid === ppid || process.kill(process.pid, "SIGKILL"), 1000);\`, { eval: true }).unref();
    const { ${functionName}: f } = await ${importOf(name, caller)};
    const values = f(${JSON.stringify(argument)});
    const send = (answer) => self.send(answer);
    const fail = ({ message, hint }) => send({ failure: { message, hint } });
    self.on("message", () => values.next().then(send, fail));
    send({});`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    stdio: ["ignore", "ignore", "ignore", "ipc"],
    serialization: "advanced",
    detached: true, // Ctrl+C is this process's matter
  });
  const hint = "the file is damaged";
  const end = once(child, "exit").then(([code, signal]: (string | number | null)[]) => {
    throw new UserError(`${task} ended with ${signal ?? `code ${code}`}`, { hint });
  });
  end.catch(() => undefined);
  type Answer = { value: Value; done?: boolean; failure?: { message: string; hint?: string } };
  const answer = async (options = {}) =>
    ((await Promise.race([once(child, "message", options), end])) as [Answer])[0];
  try {
    await answer();
    for (;;) {
      const signal = AbortSignal.timeout(Math.ceil(1000 * seconds));
      child.send("next");
      const { value, done, failure } = await answer({ signal }).catch((error: unknown) => {
        if (!signal.aborted) throw error;
        throw new UserError(`${task} came to no end in ${Math.ceil(seconds)} seconds`, { hint });
      });
      if (failure) throw new UserError(failure.message, failure);
      if (done) return;
      yield value;
    }
  } finally {
    child.kill("SIGKILL");
  }
}

export interface SubprocessResult<Value> {
  /** What the function returned; absent where the process ended before. */
  readonly value?: Value;
  readonly stderr: string;
  /** How the process ended, in words. */
  readonly ending: string;
}

/**
 * Calls the function `f` of a module in a process of its own; argument and result are what JSON can hold. Past the time it
 * hangs; the first contact with a driver can take seconds.
 */
export async function callInProcess<Value>(
  name: string,
  functionName: string,
  argument: unknown,
  caller: string,
  timeoutSeconds = 60,
): Promise<SubprocessResult<Value>> {
  const script = `const { ${functionName}: f } = await ${importOf(name, caller)};
    process.send({ value: await f(${JSON.stringify(argument)}) });`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    timeout: timeoutSeconds * 1000,
    killSignal: "SIGKILL",
  });
  let stderr = "";
  let message: { readonly value?: Value } = {};
  child.stderr!.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  child.on("message", (received) => (message = received as { value: Value }));
  const [code, signal] = (await once(child, "close")) as (string | number | null)[];
  return { ...message, stderr, ending: String(signal ?? `exit code ${code}`) };
}
