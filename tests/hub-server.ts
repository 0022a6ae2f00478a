// A small hub on loopback: the addresses, headers and redirects of the real one, with faults on demand.
// Large files are redirected to another host name and port, as the real hub does.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join, relative } from "node:path";
import { bodyOf, reply, type Writable, writing } from "./hub/writing.ts";

/** A folder, or contents by path. */
export type Files = string | Readonly<Record<string, string | Uint8Array>>;

export interface RepoSource {
  /** Files by branch or tag. */
  readonly revisions: Readonly<Record<string, Files>>;
  /** "gated" lists but does not serve, "private" does not exist, unless the hub's token is sent. */
  readonly access?: "gated" | "private";
  /** Changes what the listing says, e.g. a path or a size that is a lie. */
  readonly alterTree?: (entries: TreeEntry[]) => TreeEntry[];
}

export interface TreeEntry {
  type: "file";
  path: string;
  size: number;
  oid: string;
  lfs?: { oid: string; size: number; pointerSize: number };
}

/** What to do to one request instead of, or while, answering it. */
export interface Fault {
  readonly status?: number;
  /** Of a refusal, or of a listing. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Breaks the connection after so many bytes of the body. */
  readonly cutAfterBytes?: number;
  /** Flips one bit of the body's first byte. */
  readonly corrupt?: boolean;
  /** Sends the headers of a file and then nothing; of a listing, not even these. */
  readonly stall?: boolean;
  /** Answers 200 with the whole file to a request for a range. */
  readonly ignoreRange?: boolean;
  /** Waits so long before each half of the body. */
  readonly delayMs?: number;
}

export interface SeenRequest {
  readonly host: "hub" | "cdn";
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

export interface HubOptions {
  readonly models?: Readonly<Record<string, Files | RepoSource>>;
  readonly datasets?: Readonly<Record<string, Files | RepoSource>>;
  /** Forwarded names, e.g. `{ gpt2: "openai-community/gpt2" }`. */
  readonly moved?: Readonly<Record<string, string>>;
  /** The only token that is valid. */
  readonly token?: string;
  /** Takes what is pushed, from who has the token. */
  readonly writable?: Writable;
  /** `nth` counts requests of the same path from 1. */
  readonly fault?: (request: SeenRequest, nth: number) => Fault | undefined;
}

export interface Hub {
  readonly url: string;
  readonly requests: SeenRequest[];
  /** The commit of a repository's revision. */
  readonly commitOf: (id: string, revision?: string) => string;
  /** The files of a revision; undefined where there is no such repository or branch. */
  readonly filesOf: (id: string, revision?: string) => ReadonlyMap<string, Uint8Array> | undefined;
  readonly written: ReturnType<typeof writing>;
  readonly close: () => Promise<void>;
}

interface Commit {
  readonly repo: Repo;
  readonly oid: string;
  readonly files: ReadonlyMap<string, Uint8Array>;
}

interface Repo {
  readonly id: string;
  readonly source: RepoSource;
  readonly revisions: ReadonlyMap<string, Commit>;
}

const LARGE = /\.(safetensors|parquet|bin)$/;

/** Starts a hub; its address goes into HF_ENDPOINT. */
export async function startHub(options: HubOptions): Promise<Hub> {
  const repos = new Map<string, Repo>();
  for (const [id, source] of Object.entries(options.models ?? {}))
    repos.set(`models/${id}`, repoOf(id, source));
  for (const [id, source] of Object.entries(options.datasets ?? {}))
    repos.set(`datasets/${id}`, repoOf(id, source));
  const requests: SeenRequest[] = [];
  const counts = new Map<string, number>();

  const written = writing(options.writable ?? {}, {
    files: (id, revision) => {
      const commit = repos.get(`models/${id}`)?.revisions.get(revision);
      return commit && new Map(commit.files);
    },
    commit: (id, revision, files) => {
      const repo = repos.get(`models/${id}`) ?? repoOf(id, { revisions: {} });
      repos.set(`models/${id}`, repo);
      const lines = [...files].map(([path, bytes]) => path + hashOf("sha256", bytes));
      const oid = hashOf("sha1", [id, ...lines].join("\n"));
      (repo.revisions as Map<string, Commit>).set(revision, { repo, oid, files });
      return oid;
    },
  });
  const see = (host: SeenRequest["host"], request: IncomingMessage): Fault | undefined => {
    const path = decodeURIComponent((request.url ?? "").split("?")[0]!);
    const { range, authorization } = request.headers;
    const seen = { host, path, range, authorization };
    requests.push(seen);
    counts.set(host + path, (counts.get(host + path) ?? 0) + 1);
    return options.fault?.(seen, counts.get(host + path)!);
  };

  const onCdn = async (request: IncomingMessage, response: ServerResponse) => {
    const fault = see("cdn", request);
    if (fault?.status !== undefined) return refuse(response, fault.status, fault);
    const stored =
      options.writable &&
      written.ofStorage((request.url ?? "").split("?")[0]!, await bodyOf(request));
    if (stored) return reply(response, stored);
    const [, , sha256] = (request.url ?? "").split("/");
    const all = [...repos.values()].flatMap((repo) => [...repo.revisions.values()]);
    const body = all
      .flatMap(({ files }) => [...files.values()])
      .find((bytes) => hashOf("sha256", bytes) === sha256);
    if (fault?.status !== undefined || body === undefined)
      return refuse(response, fault?.status ?? 404, fault);
    serve(request, response, body, fault);
  };
  const onHub = async (request: IncomingMessage, response: ServerResponse) => {
    const fault = see("hub", request);
    if (fault?.status !== undefined) return refuse(response, fault.status, fault);
    if (options.writable) {
      const { method = "", url = "", headers } = request;
      const isKnown = headers.authorization === `Bearer ${options.token}`;
      if (headers.authorization !== undefined && !isKnown)
        return reply(response, { status: 401, json: { error: "Invalid username or password." } });
      const body = await bodyOf(request);
      const path = decodeURIComponent(url.split("?")[0]!);
      const [to, storage] = [addressOf(hub), addressOf(cdn, "localhost")];
      const answered = written.ofHub(path, body, to, storage);
      if (answered && method === "POST" && !isKnown)
        return reply(response, { status: 403, json: { error: "You may not write" } });
      if (answered) return reply(response, answered);
    }
    const url = (request.url ?? "").split("?")[0]!;
    if (fault?.stall && url.startsWith("/api/")) return;
    const old = Object.keys(options.moved ?? {}).find((id) => url.includes(`/${id}/`));
    if (old !== undefined) {
      const location = (request.url ?? "").replace(`/${old}/`, `/${options.moved?.[old]}/`);
      response.writeHead(307, { location }).end();
      return;
    }
    answer(request, response, url, fault);
  };
  const cdn = createServer((...at) => void onCdn(...at));
  const hub = createServer((...at) => void onHub(...at));

  const answer = (
    request: IncomingMessage,
    response: ServerResponse,
    url: string,
    fault: Fault | undefined,
  ): void => {
    const api = url.match(/^\/api\/(models|datasets)\/(.+?)\/(revision|tree|refs)(?:\/(.+))?$/);
    const file = url.match(/^\/(datasets\/)?([^/]+(?:\/[^/]+)?)\/resolve\/([^/]+)\/(.+)$/);
    const key = api ? `${api[1]}/${api[2]}` : `${file?.[1] ?? "models/"}${file?.[2]}`;
    const repo = repos.get(key);
    const sent = request.headers.authorization;
    const isKnown = options.token !== undefined && sent === `Bearer ${options.token}`;
    if (sent !== undefined && !isKnown) return refuse(response, 401);
    if (repo === undefined || (repo.source.access === "private" && !isKnown))
      return refuse(response, isKnown ? 404 : 401, { headers: { "x-error-code": "RepoNotFound" } });
    if (api?.[3] === "refs") {
      const branches = [...repo.revisions].map(([name, { oid }]) => ({ name, targetCommit: oid }));
      return json(response, { branches, tags: [], converts: [] });
    }
    const revision = decodeURIComponent(api?.[4] ?? file?.[3] ?? "");
    const commit =
      repo.revisions.get(revision) ??
      [...repo.revisions.values()].find(({ oid }) => oid === revision);
    if (commit === undefined)
      return refuse(response, 404, { headers: { "x-error-code": "RevisionNotFound" } });
    if (api?.[3] === "revision")
      return json(response, { _id: commit.oid, id: repo.id, sha: commit.oid, private: false });
    if (api?.[3] === "tree") return json(response, treeOf(commit), fault?.headers);
    if (repo.source.access === "gated" && !isKnown)
      return refuse(response, 401, { headers: { "x-error-code": "GatedRepo" } });
    const bytes = commit.files.get(decodeURIComponent(file?.[4] ?? ""));
    if (bytes === undefined)
      return refuse(response, 404, { headers: { "x-error-code": "EntryNotFound" } });
    response.setHeader("x-repo-commit", commit.oid);
    response.setHeader("etag", `"${gitHashOf(bytes)}"`);
    if (!LARGE.test(url)) return serve(request, response, bytes, fault);
    const sha256 = hashOf("sha256", bytes);
    response.setHeader("x-linked-etag", `"${sha256}"`);
    response.setHeader("x-linked-size", bytes.length);
    response.writeHead(302, { location: `${addressOf(cdn, "localhost")}/blob/${sha256}` }).end();
  };

  for (const server of [cdn, hub]) await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    url: addressOf(hub),
    requests,
    written,
    filesOf: (id, revision = "main") => repos.get(`models/${id}`)?.revisions.get(revision)?.files,
    commitOf: (id, revision = "main") =>
      (repos.get(`models/${id}`) ?? repos.get(`datasets/${id}`))!.revisions.get(revision)!.oid,
    close: async () => {
      for (const server of [cdn, hub]) {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
    },
  };
}

function repoOf(id: string, given: Files | RepoSource): Repo {
  const isSource = typeof given === "object" && typeof given["revisions"] === "object";
  const source = (isSource ? given : { revisions: { main: given } }) as RepoSource;
  const repo: Repo = { id, source, revisions: new Map() };
  for (const [name, contents] of Object.entries(source.revisions)) {
    const files = filesOf(contents);
    const text = [id, ...[...files].map(([path, bytes]) => path + hashOf("sha256", bytes))].join(
      "\n",
    );
    (repo.revisions as Map<string, Commit>).set(name, { repo, oid: hashOf("sha1", text), files });
  }
  return repo;
}

function filesOf(files: Files): Map<string, Uint8Array> {
  if (typeof files === "object")
    return new Map(Object.entries(files).map(([path, content]) => [path, Buffer.from(content)]));
  const entries = readdirSync(files, { recursive: true, withFileTypes: true });
  return new Map(
    entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [relative(files, path).replaceAll("\\", "/"), readFileSync(path)]),
  );
}

function treeOf({ repo, files }: Commit): TreeEntry[] {
  const entries = [...files].map(([path, bytes]): TreeEntry => {
    const entry = { type: "file", path, size: bytes.length } as const;
    if (!LARGE.test(path)) return { ...entry, oid: gitHashOf(bytes) };
    const lfs = { oid: hashOf("sha256", bytes), size: bytes.length, pointerSize: 134 };
    return { ...entry, oid: gitHashOf(Buffer.from(lfs.oid)), lfs };
  });
  return repo.source.alterTree?.(entries) ?? entries;
}

function serve(
  request: IncomingMessage,
  response: ServerResponse,
  whole: Uint8Array,
  fault: Fault = {},
): void {
  const asked = fault.ignoreRange ? undefined : request.headers.range?.match(/^bytes=(\d+)-$/)?.[1];
  const from = Number(asked ?? 0);
  const body = Buffer.from(whole.subarray(from));
  if (fault.corrupt && body.length > 0) body[0]! ^= 1;
  response.writeHead(asked === undefined ? 200 : 206, {
    "content-length": body.length,
    ...(asked !== undefined && {
      "content-range": `bytes ${from}-${whole.length - 1}/${whole.length}`,
    }),
  });
  response.flushHeaders();
  if (fault.stall) return;
  if (fault.cutAfterBytes !== undefined) {
    response.write(body.subarray(0, fault.cutAfterBytes), () =>
      setTimeout(() => response.destroy(), 50),
    );
    return;
  }
  const half = body.length >> 1;
  setTimeout(() => {
    response.write(body.subarray(0, half));
    setTimeout(() => response.end(body.subarray(half)), fault.delayMs ?? 0);
  }, fault.delayMs ?? 0);
}

function refuse(response: ServerResponse, status: number, fault: Fault = {}): void {
  response.writeHead(status, { "content-type": "application/json", ...fault.headers });
  response.end(JSON.stringify({ error: `status ${status}` }));
}

function json(response: ServerResponse, value: unknown, headers?: Fault["headers"]): void {
  const type = { "content-type": "application/json" };
  response.writeHead(200, { ...type, ...headers }).end(JSON.stringify(value));
}

function addressOf(server: Server, host = "127.0.0.1"): string {
  return `http://${host}:${(server.address() as AddressInfo).port}`;
}

/** Git's hash of a file's content. */
export function gitHashOf(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

function hashOf(algorithm: "sha1" | "sha256", data: string | Uint8Array): string {
  return createHash(algorithm).update(data).digest("hex");
}
