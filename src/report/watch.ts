// The page of a run at work, for browsers on the same machine alone: by a random port and a name that only its link has.

import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { messageOf } from "../core/errors.ts";
import { readRun } from "./data.ts";
import { pageOf } from "./document.ts";

const HEADERS = {
  "cache-control": "no-store",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  // No idle connection keeps a process that has nothing else to do.
  connection: "close",
};

/** Serves until the process ends, which it does not hold up; `tell` gets the link, or why there is none. */
export function watchRun(runDir: string, tell: (url: string) => void): void {
  const token = randomBytes(16).toString("hex");
  let host = "";
  const answer = async (path: string): Promise<readonly [type: string, content: string]> => {
    const run = await readRun(runDir);
    if (path.endsWith("/data")) return ["application/json", JSON.stringify(run)];
    return ["text/html", await pageOf(run, true)];
  };
  const server = createServer(({ url = "", headers }, response) => {
    const fail = (status: number, why: string) => response.writeHead(status, HEADERS).end(why);
    // Another name that leads to this address is a trick to read from here.
    const isOurs = headers.host === host && [`/${token}/`, `/${token}/data`].includes(url);
    if (!isOurs) fail(404, "not found");
    else
      answer(url).then(
        ([type, content]) =>
          response.writeHead(200, { ...HEADERS, "content-type": type }).end(content),
        (error: unknown) => fail(503, messageOf(error)),
      );
  });
  server.on("error", (error) => tell(`not served: ${error.message}`));
  server.listen(0, "127.0.0.1", () => {
    host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    tell(`http://${host}/${token}/`);
  });
  server.unref();
}
