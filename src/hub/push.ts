// Files to a model's repository through the hub's own client: what is there already, by checksum, is not sent again.

import { openAsBlob, statSync } from "node:fs";
import { buffer } from "node:stream/consumers";
import { pathToFileURL } from "node:url";
import type { CommitOperation } from "@huggingface/hub";
import { codeOf, messageOf, UserError } from "../core/errors.ts";
import { hashOfFile } from "../files/safetensors.ts";
import { contentHash } from "./cache.ts";
import type { HubContext } from "./environment.ts";
import { nameOf } from "./repo-id.ts";
import * as requests from "./request.ts";

/** A file by its name in the repository: one on this machine, or its text; `head` takes the place of its first bytes. */
export type Upload = Readonly<
  { name: string } & ({ path: string; head?: Head | undefined } | { text: string })
>;
export type Head = Readonly<{ bytes: Uint8Array; inPlaceOf: number }>;
export type Pushed = Awaited<ReturnType<typeof pushFiles>>;

const noHead: Head = { bytes: new Uint8Array(), inPlaceOf: 0 };

interface PushOptions {
  readonly message: string;
  readonly isPrivate?: boolean;
  /** Says what would be sent, and sends nothing. */
  readonly isDryRun?: boolean;
}

/** Makes the repository and the branch where they are missing, and commits what of the files differs from what is there. */
export async function pushFiles(
  context: HubContext,
  uploads: readonly Upload[],
  { message, isPrivate = false, isDryRun = false }: PushOptions,
) {
  const { settings, repo, signal, onProgress } = context;
  const { endpoint: hubUrl, token, offline, useXet } = settings;
  if (offline && !isDryRun)
    throw requests.failed("offline: nothing can be pushed", "run it with HF_HUB_OFFLINE unset");
  if (!token && !isDryRun)
    throw new UserError(`no token: pushing to ${nameOf(repo)} needs one that may write`, {
      hint: "make one on the hub's token page and set HF_TOKEN, or keep it in ~/.cache/huggingface/token",
    });
  const hub = await import("@huggingface/hub");
  const common = { repo: { type: "model", name: repo.id } as const, hubUrl };
  const client = { ...common, fetch: fetchOf(context), accessToken: "" };
  const branch = repo.revision;
  try {
    const remote = offline ? null : await remoteOf(hub, client, branch);
    if (remote && isPrivate && !remote.isPrivate)
      throw new UserError(`${nameOf(repo)} exists and is public`, {
        hint: "make it private in its settings on the hub, take another name, or leave --private out",
      });
    const files = [];
    for (const upload of uploads) {
      const sizeBytes = sizeOf(upload);
      const there = remote?.files.get(upload.name);
      const isSame =
        there?.size === sizeBytes && (await hashOf(upload, sizeBytes, there)) === there.hash;
      const state = there ? (isSame ? "unchanged" : "changed") : offline ? "not compared" : "new";
      files.push({ name: upload.name, sizeBytes, state } as const);
    }
    const sent = files.filter(({ state }) => state !== "unchanged");
    const result = {
      url: requests.pageOf(context),
      branch,
      isNew: !remote,
      isDryRun,
      files,
      sentBytes: sent.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      commit: null as string | null,
    };
    if (isDryRun || sent.length === 0) return result;
    const visibility = isPrivate && { visibility: "private" as const };
    if (!remote) await hub.createRepo({ ...client, ...visibility }).catch(unlessThere);
    if (branch !== "main" && !remote?.hasBranch)
      await hub.createBranch({ ...client, branch }).catch(unlessThere);
    const operations: CommitOperation[] = [];
    for (const upload of uploads)
      if (sent.some(({ name }) => name === upload.name))
        operations.push({
          operation: "addOrUpdate",
          path: upload.name,
          content: await contentOf(upload),
        });
    const how = { branch, title: message, useXet, ...(signal && { abortSignal: signal }) };
    const commit = hub.commitIter({ ...client, ...how, operations });
    for (;;) {
      const { done, value } = await commit.next();
      if (done) return { ...result, commit: value?.commit.oid ?? null };
      if (value.event !== "fileProgress" || value.state !== "uploading") continue;
      const { sizeBytes = 0 } = sent.find(({ name }) => name === value.path) ?? {};
      const receivedBytes = Math.round(sizeBytes * value.progress);
      onProgress?.({ file: value.path, receivedBytes, totalBytes: sizeBytes });
    }
  } catch (error) {
    signal?.throwIfAborted();
    // What this machine's files refuse says so itself.
    if (error instanceof UserError || codeOf(error) !== undefined) throw error;
    const isAnswer = error instanceof Error && "statusCode" in error;
    if (isAnswer) throw new UserError(`${hubUrl}: ${error.message}`, AGAIN);
    throw requests.notAHub(context, messageOf(error));
  }
}

type Client = typeof import("@huggingface/hub");
const AGAIN = { hint: "run it again: what has arrived is not sent again", exitCode: 1 } as const;

/** What of a repository matters to a push; null where there is none. */
async function remoteOf(hub: Client, client: Parameters<Client["listFiles"]>[0], branch: string) {
  const files = new Map<string, { size: number; hash: string; isLarge: boolean }>();
  let [isPrivate, hasBranch] = [false, true];
  try {
    const { name } = client.repo as { name: string };
    ({ private: isPrivate } = await hub.modelInfo({ ...client, name }));
    const of = { ...client, revision: encodeURIComponent(branch), recursive: true };
    for await (const { path, size, oid = "", lfs } of hub.listFiles(of))
      files.set(path, { size: lfs?.size ?? size, hash: lfs?.oid ?? oid, isLarge: Boolean(lfs) });
  } catch (error) {
    if (error instanceof NoRepoError) return null;
    if (!(error instanceof requests.NoRevisionError)) throw error;
    hasBranch = false;
  }
  return { isPrivate, files, hasBranch };
}

function sizeOf(upload: Upload): number {
  if ("text" in upload) return Buffer.byteLength(upload.text);
  const { path, head = noHead } = upload;
  return statSync(path).size - head.inPlaceOf + head.bytes.length;
}

async function contentOf(upload: Upload): Promise<Blob | URL> {
  if ("text" in upload) return new Blob([upload.text]);
  const { path, head } = upload;
  if (!head) return pathToFileURL(path);
  return new Blob([new Uint8Array(head.bytes), (await openAsBlob(path)).slice(head.inPlaceOf)]);
}

function hashOf(upload: Upload, sizeBytes: number, { isLarge }: { readonly isLarge: boolean }) {
  const hash = contentHash(isLarge, sizeBytes);
  if ("text" in upload) return hash.update(upload.text).digest("hex");
  const { path, head = noHead } = upload;
  return hashOfFile(path, hash.update(head.bytes), Infinity, head.inPlaceOf);
}

class NoRepoError extends UserError {}
class ConflictError extends UserError {}
class StorageError extends UserError {}

/** Another process may have made it in between, or a request whose answer was lost. */
function unlessThere(error: unknown): void {
  if (!(error instanceof ConflictError)) throw error;
}

/** Tells of part after part of one file. */
type Hint = { readonly numParts?: number; readonly progressCallback: (fraction: number) => void };

/** Our requests, with token, proxy, patience and repetition, in the form of `fetch`; answers are short. */
function fetchOf(context: HubContext): typeof fetch {
  const sent = new WeakMap<Hint["progressCallback"], number>();
  const read = async ({ status, headers }: Response, chunks: AsyncIterable<Uint8Array>) => {
    const body = await buffer(chunks);
    return new Response(body.length > 0 ? body : null, { status, headers });
  };
  return (input, { progressHint: hint, ...init }: RequestInit & { progressHint?: Hint } = {}) => {
    const onSent = (numBytes: number) => {
      if (!hint || !(init.body instanceof Blob)) return;
      const done = (sent.get(hint.progressCallback) ?? 0) + numBytes;
      sent.set(hint.progressCallback, done);
      hint.progressCallback(Math.min(1, done / (init.body.size * (hint.numParts ?? 1))));
    };
    const how = { ...init, onSent, failure };
    const url = input instanceof Request ? input.url : String(input);
    const send = () => requests.request(context, url, read, how);
    return requests.retrying(context, send).catch((error: unknown) => {
      // A piece that the storage does not know is an answer.
      if (!init.body && error instanceof StorageError) return new Response(null, { status: 404 });
      throw error;
    });
  };
}

/** What a refusal means to who writes. */
const failure: typeof requests.statusFailure = (response, context, file, text) => {
  const { status, url, headers } = response;
  const general = requests.statusFailure(response, context, file, text);
  const name = nameOf(context.repo);
  if (general instanceof requests.TransientError) return general;
  if (new URL(url).origin !== new URL(context.settings.endpoint).origin)
    return new StorageError(`the storage answered status ${status} to a file of ${name}`, AGAIN);
  const code = headers.get("x-error-code");
  if (code === "RevisionNotFound") return general;
  const isMissing = status === 404 || code === "RepoNotFound";
  if (isMissing || (status === 401 && !context.settings.token))
    return new NoRepoError(general.message);
  if (status === 409) return new ConflictError(general.message);
  if (status !== 403) return general;
  return new UserError(`the token in use may not write to ${name} (status 403)`, {
    hint: "take one with the right to write to that owner's repositories, or another owner in --repo",
  });
};
