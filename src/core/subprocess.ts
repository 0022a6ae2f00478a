// Calls one function of a module in a process of its own: for native code that may crash the process or write to its
// streams.

import { spawn } from "node:child_process";

export interface SubprocessResult<Value> {
  /** What the function returned; absent where the process ended before. */
  readonly value?: Value;
  readonly stderr: string;
  /** How the process ended, in words. */
  readonly ending: string;
}

/** `callInProcess("./name", "f", argument, import.meta.url)`: argument and result are what JSON can hold. */
export function callInProcess<Value>(
  name: string,
  functionName: string,
  argument: unknown,
  caller: string,
  timeoutSeconds: number,
): Promise<SubprocessResult<Value>> {
  const extension = caller.slice(caller.lastIndexOf("."));
  const url = new URL(name + extension, caller).href;
  const register =
    extension === ".ts"
      ? `(await import("${import.meta.resolve("tsx/esm/api")}")).register();`
      : "";
  const script = `${register} const { ${functionName}: f } = await import("${url}");
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
