// Pages for browsers on the same machine alone: by a random port and a name that only their link has.

import { randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { messageOf } from "../core/errors.ts";
import { readRun } from "./data.ts";
import { pageOf } from "./document.ts";

const HEADERS = {
  "cache-control": "no-store",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  // Alone in its process, so that its threads may share memory.
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  // No idle connection keeps a process that has nothing else to do.
  connection: "close",
};

/** What is there under a name: a text, or a file as it lies on disk. */
export type Served = Readonly<{ type: string } & ({ text: string } | { path: string })>;

type Find = (name: string) => Promise<Served | undefined>;

/** Serves until the process ends; `tell` gets the link, or why there is none. The page itself has the name "". */
export function serveHere(find: Find, tell: (url: string) => void) {
  const token = randomBytes(16).toString("hex");
  let host = "";
  const server = createServer(({ url = "", headers }, response) => {
    const answer = async () => {
      // Another name that leads to this address is a trick to read from here.
      const isOurs = headers.host === host && url.startsWith(`/${token}/`);
      const found = isOurs && (await find(url.slice(token.length + 2)));
      if (!found) {
        response.writeHead(404, HEADERS).end("not found");
        return;
      }
      const body = "text" in found ? Readable.from([found.text]) : createReadStream(found.path);
      response.writeHead(200, { ...HEADERS, "content-type": found.type });
      // A browser that went away is no failure.
      await pipeline(body, response).catch(() => undefined);
    };
    answer().catch((error: unknown) => response.writeHead(503, HEADERS).end(messageOf(error)));
  });
  server.on("error", (error) => tell(`not served: ${error.message}`));
  server.listen(0, "127.0.0.1", () => {
    host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    tell(`http://${host}/${token}/`);
  });
  return server;
}

/** Serves the page of a run at work until the process ends, which it does not hold up; `tell` gets the link, or why there is none. */
export function watchRun(runDir: string, tell: (url: string) => void): void {
  const find = async (name: string) => {
    if (name !== "" && name !== "data") return undefined;
    const run = await readRun(runDir);
    if (name === "") return { type: "text/html", text: await pageOf(run, true) };
    return { type: "application/json", text: JSON.stringify(run) };
  };
  serveHere(find, tell).unref();
}
