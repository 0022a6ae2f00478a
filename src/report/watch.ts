// The page of a run at work.

import { readRun } from "./data.ts";
import { pageOf } from "./document.ts";
import { serveHere } from "./loopback.ts";

/** Serves until the process ends, which it does not hold up; `tell` gets the link, or why there is none. */
export function watchRun(runDir: string, tell: (url: string) => void): void {
  const find = async (name: string) => {
    if (name !== "" && name !== "data") return undefined;
    const run = await readRun(runDir);
    if (name === "") return { type: "text/html", text: await pageOf(run, true) };
    return { type: "application/json", text: JSON.stringify(run) };
  };
  serveHere(find, tell).unref();
}
