// Requests to the hub: the token goes to the hub's own address only, failures become errors, passing ones repeat;
// and what it says of a repository: the commit that a revision means, and the files of that.

import { setTimeout as sleep } from "node:timers/promises";
import { didYouMean, messageOf, UserError } from "../core/errors.ts";
import { cachedCommit, isSound, openSnapshot, type RepoFile, type Snapshot } from "./cache.ts";
import type { HubContext, HubSettings } from "./environment.ts";
import * as failures from "./failures.ts";
import { notAHub, NoRevisionError } from "./failures.ts";
import { isCommit, nameOf } from "./repo-id.ts";

const MAX_FAILURES = 5;
const LONGEST_WAIT_MS = 120_000;
// The hub advises against more than 100,000 files in a repository: 100 pages, some 30 MB.
const MAX_PAGES = 1000;
const MAX_LISTING_BYTES = 2 ** 26;

/**
 * Sends one request, for a `file` or a listing, and gives `use` a successful answer and the chunks of its body, between
 * which the hub may be silent for its time. Plain references throughout: in Node 20 the signals of AbortSignal.any and
 * AbortSignal.timeout, and what fetch keeps of a request once its headers are there, can be collected before they fire.
 */
export async function request<T>(
  context: HubContext,
  url: string,
  use: (response: Response, chunks: AsyncIterable<Uint8Array>) => Promise<T>,
  { file, headers: given }: { file?: string; headers?: HeadersInit } = {},
): Promise<T> {
  const { settings, signal: outer } = context;
  const headers = new Headers(given);
  // A redirect to another host loses this header too: fetch sees to that.
  if (settings.token && new URL(url).origin === new URL(settings.endpoint).origin)
    headers.set("authorization", `Bearer ${settings.token.reveal()}`);
  const controller = new AbortController();
  const { signal } = controller;
  const timeoutMs = file === undefined ? settings.metadataTimeoutMs : settings.downloadTimeoutMs;
  const onSilence = () => controller.abort(new Error(`timeout: no data for ${timeoutMs / 1000} s`));
  const timer = setTimeout(onSilence, timeoutMs);
  const onStop = () => controller.abort(outer?.reason);
  if (outer?.aborted) onStop();
  outer?.addEventListener("abort", onStop);
  const onBroken = (error: unknown): never => {
    outer?.throwIfAborted();
    throw failures.networkFailure(error, context, file);
  };
  async function* chunksOf({ body }: Response): AsyncGenerator<Uint8Array> {
    const reader = body?.getReader();
    // Ends a pending read, whatever the connection does.
    signal.addEventListener("abort", () => void reader?.cancel().catch(() => undefined));
    for (;;) {
      const part = await reader?.read().catch(onBroken);
      if (signal.aborted) onBroken(signal.reason);
      if (part === undefined || part.done) return;
      timer.refresh();
      yield part.value;
    }
  }
  const { send, close } = await sender(settings);
  try {
    const response = await send(url, { headers, signal }).catch(onBroken);
    if (response.ok) return await use(response, chunksOf(response));
    await response.body?.cancel();
    throw failures.statusFailure(response, context, file);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", onStop);
    controller.abort();
    close();
  }
}

/** `fetch`, which knows no proxies before Node 24; where there are any, that of undici, loaded for them alone. */
async function sender({ proxies }: HubSettings) {
  if (!proxies) return { send: fetch, close: () => undefined };
  const undici = await import("undici");
  const dispatcher = new undici.EnvHttpProxyAgent({ ...proxies.reveal(), proxyTunnel: false });
  const send = (url: string, init: object) => undici.fetch(url, { ...init, dispatcher });
  return { send: send as unknown as typeof fetch, close: () => void dispatcher.destroy() };
}

/**
 * Repeats `attempt` after failures that may pass, with doubling waits or those that the hub asks for,
 * until it has failed five times without `progress` having grown.
 */
export async function retrying<T>(
  { settings, signal }: HubContext,
  attempt: () => Promise<T>,
  progress: () => number = () => 0,
): Promise<T> {
  let before = progress();
  for (let numFailures = 0; ; numFailures++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof failures.TransientError)) throw error;
      if (progress() > before) numFailures = 0;
      before = progress();
      const waitMs = error.waitMs ?? settings.retryDelayMs * 2 ** numFailures;
      if (numFailures + 1 >= MAX_FAILURES || waitMs > LONGEST_WAIT_MS) throw error;
      await sleep(waitMs, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}

/** Asks the hub for the commit of a revision and for its files, and remembers both in the cache. */
export async function fetchSnapshot(context: HubContext): Promise<Snapshot> {
  const { settings, repo, signal, onNote } = context;
  try {
    const before = await cachedCommit(settings, repo);
    const commit = await commitOf(context);
    const cached = openSnapshot(settings, repo, commit);
    const listing = cached.listing ?? (await filesOf(context, cached));
    const snapshot = openSnapshot(settings, repo, commit, listing);
    await snapshot.remember();
    if (before && before !== commit)
      onNote?.(
        `${nameOf(repo)} has changed on the hub: ${repo.revision} is now ${commit.slice(0, 8)}, the cached one was ${before.slice(0, 8)}`,
      );
    return snapshot;
  } catch (error) {
    signal?.throwIfAborted();
    const failure = failures.diskFailure(error, `the listing of ${nameOf(repo)}`, settings);
    // Whatever else we stumble over means an answer that no hub gives.
    if (failure instanceof UserError) throw failure;
    const isForm = failure instanceof TypeError;
    throw notAHub(context, isForm ? "its answer has another form" : messageOf(failure));
  }
}

async function commitOf(context: HubContext): Promise<string> {
  const { revision } = context.repo;
  if (isCommit(revision)) return revision;
  try {
    const path = `revision/${encodeURIComponent(revision)}?expand=sha`;
    const { sha } = (await ask(context, path)).json as { sha: unknown };
    if (isCommit(String(sha))) return String(sha);
    throw notAHub(context, `its commit is ${JSON.stringify(sha)}`);
  } catch (error) {
    if (!(error instanceof NoRevisionError)) throw error;
    const names = await namesIn(context).catch(() => []);
    const hint = didYouMean(revision, names) ?? `it has ${names.slice(0, 10).join(", ")}`;
    throw names.length > 0 ? new NoRevisionError(error.message, { hint }) : error;
  }
}

async function namesIn(context: HubContext): Promise<string[]> {
  const { json } = await ask(context, "refs");
  const { branches, tags } = json as Record<"branches" | "tags", { name: string }[]>;
  return [...branches, ...tags].map(({ name }) => name);
}

/** As a listing has it; `lfs` has the hash and the size of a large file. */
type TreeEntry = { type: string; path: string; oid: string; size: number; lfs?: TreeEntry };

async function filesOf(context: HubContext, { commit, pathOf }: Snapshot) {
  const listing = new Map<string, RepoFile>();
  const pages = new Set<string>();
  let bytesLeft = MAX_LISTING_BYTES;
  for (let next: string | undefined = `tree/${commit}?recursive=true`; next !== undefined;) {
    const page = await ask(context, next, bytesLeft);
    for (const { type, path, size, oid, lfs } of page.json as TreeEntry[]) {
      pathOf(path); // throws where it leaves the folder
      if (type !== "file") continue;
      const large = lfs && { lfs_sha256: lfs.oid, lfs_size: lfs.size };
      const file = { size: lfs?.size ?? size, blob_id: oid, ...large };
      if (!isSound(file)) throw notAHub(context, `${path} has no size or checksum`);
      listing.set(path, file);
    }
    bytesLeft -= page.numBytes;
    pages.add(page.url);
    next = page.next;
    if (pages.size === MAX_PAGES || pages.has(next ?? ""))
      throw notAHub(context, `its listing has no end within ${pages.size} pages`);
  }
  return listing;
}

/** A short answer in full, and the address of its next page; repeated where that may help. */
function ask(context: HubContext, path: string, maxBytes = MAX_LISTING_BYTES) {
  const { settings, repo } = context;
  const url = new URL(path, `${settings.endpoint}/api/${repo.type}s/${repo.id}/`).href;
  const read = async ({ headers }: Response, chunks: AsyncIterable<Uint8Array>) => {
    const parts = [];
    let numBytes = 0;
    for await (const part of chunks) {
      numBytes += part.length;
      if (numBytes > maxBytes)
        throw notAHub(context, `its listing has more than ${MAX_LISTING_BYTES} bytes`);
      parts.push(part);
    }
    const json: unknown = JSON.parse(String(Buffer.concat(parts)));
    const link = /<([^>]*)>; *rel="next"/.exec(headers.get("link") ?? "")?.[1];
    return { json, numBytes, url, next: link && new URL(link, url).href };
  };
  return retrying(context, () => request(context, url, read));
}
