// What of the real hub's addresses writes: repositories, preupload, the batches of Git LFS with its storage, Xet's
// content store as far as it is asked for, and commits.

import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";

export interface Writable {
  /** How the hub takes large files. */
  readonly transfer?: "basic" | "multipart" | "xet";
  /** The repositories that exist and are private. */
  readonly privateRepos?: readonly string[];
}

interface Place {
  readonly files: (id: string, revision: string) => Map<string, Uint8Array> | undefined;
  readonly commit: (id: string, revision: string, files: Map<string, Uint8Array>) => string;
}

interface Answer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
}

const PART = 100_000;
const LARGE = /\.(safetensors|bin|onnx)$/;
const sha256Of = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Answers what writes; undefined for what does not. `hub` and `storage` are the addresses of both servers. */
export function writing({ transfer = "basic", privateRepos = [] }: Writable, place: Place) {
  const objects = new Map<string, Uint8Array>();
  const parts = new Map<string, Uint8Array[]>();
  const created = new Map<string, boolean>(privateRepos.map((id) => [id, true]));
  const stored: string[] = [];
  const titles: string[] = [];

  const batch = (body: Buffer, hub: string, storage: string): Answer => {
    const asked = JSON.parse(String(body)) as {
      transfers: string[];
      objects: { oid: string; size: number }[];
    };
    if (!asked.transfers.includes(transfer)) return { status: 400 };
    const answers = asked.objects.map(({ oid, size }) => {
      const href = `${storage}/upload/${oid}`;
      const numParts = Math.ceil(size / PART);
      const each = Array.from({ length: numParts }, (_, i) => [i + 1, `${href}/${i + 1}`]);
      const of = {
        basic: { href },
        multipart: {
          href: `${hub}/complete/${oid}`,
          header: { ...Object.fromEntries(each), chunk_size: String(PART) },
        },
        xet: {
          href: `${hub}/api/models/xet-write-token/main`,
          header: {
            "X-Xet-Cas-Url": storage,
            "X-Xet-Access-Token": "xet_secret",
            "X-Xet-Token-Expiration": String(Math.floor(Date.now() / 1000) + 3600),
          },
        },
      };
      return { oid, size, ...(!objects.has(oid) && { actions: { upload: of[transfer] } }) };
    });
    return { json: { transfer, objects: answers } };
  };

  const commit = (id: string, revision: string, body: Buffer): Answer => {
    const lines = String(body).trim().split("\n");
    const files = new Map(place.files(id, revision));
    for (const line of lines) {
      const { key, value } = JSON.parse(line) as { key: string; value: Record<string, string> };
      if (key === "header") titles.push(value["summary"]!);
      const path = value["path"]!;
      if (key === "file") files.set(path, Buffer.from(value["content"]!, "base64"));
      const bytes = objects.get(value["oid"] ?? "");
      if (key === "lfsFile" && !bytes) return { status: 400, json: { error: `no ${path}` } };
      if (key === "lfsFile") files.set(path, bytes!);
    }
    const commitOid = place.commit(id, revision, files);
    return { json: { success: true, commitOid, commitUrl: "", hookOutput: "" } };
  };

  /** A file of a hub. */
  const ofHub = (path: string, body: Buffer, hub: string, storage: string) => {
    if (path === "/api/repos/create") {
      const { organization, name, visibility } = JSON.parse(String(body)) as Record<string, string>;
      const id = `${organization}/${name}`;
      if (place.files(id, "main")) return { status: 409, json: { error: "You have it already" } };
      created.set(id, visibility === "private");
      place.commit(id, "main", new Map([[".gitattributes", Buffer.from("*.bin lfs")]]));
      return { json: { url: `${hub}/${id}`, id } };
    }
    const [, id = "", what, revision = ""] =
      /^\/api\/models\/([^/]+\/[^/]+)\/(preupload|commit|branch|revision)\/([^/]+)$/.exec(path) ??
      [];
    if (what === "revision" && revision === "HEAD") {
      if (!place.files(id, "main")) return undefined;
      return { json: { _id: "1", id, private: created.get(id) ?? false, lastModified: 0 } };
    }
    if (what === "branch") {
      place.commit(id, revision, new Map(place.files(id, "main")));
      return { json: {} };
    }
    if (what === "revision") return undefined;
    if (what && !place.files(id, revision))
      return { status: 404, headers: { "x-error-code": "RevisionNotFound" } };
    if (what === "preupload") {
      const { files } = JSON.parse(String(body)) as { files: { path: string }[] };
      const modes = files.map(({ path }) => {
        return { path, uploadMode: LARGE.test(path) ? "lfs" : "regular" };
      });
      return { json: { files: modes } };
    }
    if (what === "commit") return commit(id, revision, body);
    if (path.endsWith(".git/info/lfs/objects/batch")) return batch(body, hub, storage);
    const completed = /^\/complete\/(\w+)$/.exec(path)?.[1];
    if (completed) {
      const bytes = Buffer.concat(parts.get(completed) ?? []);
      if (sha256Of(bytes) !== completed) return { status: 400, json: { error: "not these bytes" } };
      objects.set(completed, bytes);
      return { json: {} };
    }
    return undefined;
  };

  /** One of the storage. */
  const ofStorage = (path: string, body: Buffer) => {
    const [, oid, part] = /^\/upload\/(\w+)(?:\/(\d+))?$/.exec(path) ?? [];
    if (oid && part) {
      parts.set(oid, Object.assign(parts.get(oid) ?? [], { [Number(part) - 1]: body }));
      return { headers: { etag: `"${part}"` } };
    }
    if (oid) {
      if (sha256Of(body) !== oid) return { status: 400 };
      objects.set(oid, body);
      stored.push(oid);
      return {};
    }
    if (/^\/v1\/(xorbs|shards)/.test(path)) {
      stored.push(path);
      return { json: { was_inserted: true, result: 1 } };
    }
    return undefined;
  };

  return { ofHub, ofStorage, objects, stored, titles, isPrivate: (id: string) => created.get(id) };
}

export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export function reply(response: ServerResponse, { status = 200, headers, json = {} }: Answer) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(json));
}
