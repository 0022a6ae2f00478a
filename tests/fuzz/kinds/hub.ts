// A hub that lies, breaks off, or is none: nothing that it says gets a wrong byte into the cache, or one outside it.

import { once } from "node:events";
import { readdir, readFile, rm } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join, relative } from "node:path";
import type { Random } from "../../../src/core/random.ts";
import { hubSettings } from "../../../src/hub/environment.ts";
import { resolveModel } from "../../../src/hub/model.ts";
import { startHub } from "../../hub-server.ts";
import { expect, reading } from "../contract.ts";
import { below, happens, mutateBytes, mutateJson, pick } from "../mutate.ts";
import { type Prepare, subject } from "../subject.ts";

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Ends the connection after so many bytes; -1: sends nothing, and waits. */
  readonly cutAt?: number;
}

interface Case {
  /** By path and query; the honest ones where there is none. */
  readonly answers: ReadonlyMap<string, Answer>;
  /** Lies to the first request only. */
  readonly isOnce: boolean;
}

const id = "some-org/tiny";
const files = {
  "config.json": '{"model_type":"gpt2"}',
  "tokenizer.json": '{"version":"1.0"}',
  "README.md": "# a model",
  "model.safetensors.index.json":
    '{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}',
  "model-00001-of-00002.safetensors": "one ".repeat(500),
  "model-00002-of-00002.safetensors": "two ".repeat(700),
};

export const hub: Prepare = async ({ folder }) => {
  const honest = await startHub({ models: { [id]: files } });
  const known = new Map<string, Answer>();
  let lies: Case = { answers: new Map(), isOnce: false };
  const told = new Set<string>();
  const server = createServer((request, response) => {
    const key = `${request.url ?? ""} ${request.headers.range ?? ""}`.trim();
    const lie = lies.isOnce && told.has(key) ? undefined : lies.answers.get(key);
    told.add(key);
    const answer = lie ? Promise.resolve(lie) : honestly(key, request.headers.range);
    answer.then((found) => send(response, found)).catch(() => response.destroy());
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  let cdn = "";
  const honestly = async (key: string, range?: string): Promise<Answer> => {
    const before = known.get(key);
    if (before) return before;
    const path = key.split(" ")[0]!;
    const from = path.startsWith("/blob/") ? cdn : honest.url;
    const init = { redirect: "manual", headers: { ...(range && { range }) } } as const;
    const response = await fetch(from + path, init);
    const headers = Object.fromEntries(
      [...response.headers].filter(
        ([name]) => !/^(connection|keep-alive|date|transfer-.*|content-length)$/.test(name),
      ),
    );
    const location = headers["location"];
    if (location) {
      cdn = new URL(location).origin;
      headers["location"] = location.replace(cdn, url);
    }
    const answer = {
      status: response.status,
      headers,
      body: Buffer.from(await response.arrayBuffer()),
    };
    known.set(key, answer);
    return answer;
  };

  let numHomes = 0;
  const resolving = async (lying: Case) => {
    lies = lying;
    told.clear();
    const home = join(folder, "within", `home-${numHomes++}`);
    const settings = {
      ...hubSettings({ HF_ENDPOINT: url, HF_HOME: home }, home),
      retryDelayMs: 0,
      metadataTimeoutMs: 300,
      downloadTimeoutMs: 300,
    };
    // A path that would leave the cache is named itself.
    const names = [id, url, home, "the hub names a file", ...Object.keys(files)];
    const found = await reading(names, () => resolveModel(id, settings));
    const outside = [
      ...(await readdir(folder)),
      ...(await readdir(join(folder, "within")).catch(() => [])),
    ];
    const strange = outside.filter((name) => name !== "within" && !name.startsWith("home-"));
    expect(strange.length === 0, () => `written outside the cache: ${strange.join()}`);
    let isWhole = false;
    if ("value" in found) {
      const here = await filesIn(found.value);
      for (const [name, content] of here)
        expect(files[name as keyof typeof files] === content, () => `${name} holds ${content}`);
      isWhole = here.size === Object.keys(files).length;
    }
    await rm(home, { recursive: true, force: true });
    return { found, isWhole };
  };
  const first = await resolving(lies);
  expect(first.isWhole, () => "the honest hub is not understood");
  const paths = [...known.keys()].sort();
  return subject<Case>({
    mutate: (random) => {
      const changed = new Map<string, Answer>();
      do {
        // The listing decides most.
        const listings = paths.filter((path) => path.startsWith("/api/"));
        const path = pick(random, happens(random, 0.5) ? listings : paths);
        changed.set(path, mutateAnswer(known.get(path)!, random, url + pick(random, paths)));
      } while (happens(random, 0.2));
      return { answers: changed, isOnce: happens(random, 0.2) };
    },
    check: async (lying) => {
      const { found, isWhole } = await resolving(lying);
      if ("refusal" in found) return "refused";
      return isWhole ? "same" : "other";
    },
    dispose: async () => {
      server.closeAllConnections();
      server.close();
      await honest.close();
    },
  });
};

const headerNames = [
  "location",
  "link",
  "etag",
  "content-type",
  "content-encoding",
  "content-range",
  "x-repo-commit",
];

function mutateAnswer(answer: Answer, random: Random, other: string): Answer {
  const { headers, body } = answer;
  const values = [
    other,
    `<${other}>; rel="next"`,
    '<::>; rel="next"',
    "/",
    "file:///etc/passwd",
    "gzip",
    '"x"',
    "bytes 5-9/3",
  ].concat(["http://[", "a".repeat(9000), ""]);
  return pick<() => Answer>(random, [
    () => ({ ...answer, body: mutateBytes(body, random) }),
    () => ({ ...answer, body: Buffer.from(mutatedJson(body, random)) }),
    () => ({ ...answer, body: Buffer.from(mutatedJson(body, random)) }),
    () => ({ ...answer, body: Buffer.from(mutatedJson(body, random)) }),
    () => ({
      ...answer,
      status: pick(
        random,
        [200, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 416, 429, 500, 503],
      ),
    }),
    () => ({
      ...answer,
      headers: { ...headers, [pick(random, headerNames)]: pick(random, values) },
    }),
    () => ({ ...answer, cutAt: below(random, body.length + 1) }),
    () => (happens(random, 0.1) ? { ...answer, cutAt: -1 } : { ...answer, body: Buffer.alloc(0) }),
    () => ({
      ...answer,
      headers: { "content-type": "text/html" },
      body: Buffer.from("<html>log in</html>"),
    }),
  ])();
}

function mutatedJson(body: Buffer, random: Random): string | Buffer {
  try {
    return mutateJson(JSON.parse(body.toString()), random);
  } catch {
    return mutateBytes(body, random);
  }
}

function send(response: ServerResponse, { status, headers, body, cutAt }: Answer): void {
  if (cutAt === -1) return;
  try {
    response.writeHead(status, { ...headers, "content-length": body.length });
  } catch {
    response.destroy(); // a header that no server can send
    return;
  }
  if (cutAt === undefined) response.end(body);
  else response.write(body.subarray(0, cutAt), () => response.destroy());
}

/** Contents by path, links followed. */
async function filesIn(folder: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isDirectory()) found.set(relative(folder, path), await readFile(path, "utf8"));
  }
  return found;
}
