// What worker.test.ts calls in a worker or a process of its own.

import { UserError } from "../../src/core/errors.ts";

export type Ending = "end" | "fail" | "loop" | "crash";

export async function* count({ to, ending }: { to: number; ending: Ending }) {
  for (let i = 0; i < to; i++) yield i;
  if (ending === "fail") throw new UserError("no more", { hint: "count less" });
  if (ending === "loop") for (;;);
  if (ending === "crash") process.abort();
}

export const double = (x: number) => Promise.resolve(2 * x);

export function crash(): never {
  process.stderr.write("about to crash\n");
  process.abort();
}

export function fail(): never {
  throw new Error("thrown inside");
}

export function hang(): Promise<never> {
  return new Promise(() => setInterval(() => undefined, 1000));
}
