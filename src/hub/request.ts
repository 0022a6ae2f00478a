// Requests to the hub: the token goes to the hub's own address only, failures become errors, passing ones repeat.

import { setTimeout as sleep } from "node:timers/promises";
import { didYouMean, messageOf, UserError } from "../core/errors.ts";
import { checkInside, isSound, type RepoFile, Snapshot } from "./cache.ts";
import type { HubContext } from "./environment.ts";
import * as failures from "./failures.ts";
import { notAHub, NoRevisionError } from "./failures.ts";
import { isCommit, nameOf } from "./repo-id.ts";

const MAX_FAILURES = 5;
const LONGEST_WAIT_MS = 120_000;
// The hub advises against more than 100,000 files in a repository: 100 pages, some 30 MB.
const MAX_PAGES = 1000;
const MAX_LISTING_BYTES = 2 ** 26;

/**
 * Sends one request and gives `use` a successful answer and the chunks of its body; `timeoutMs` is how long the hub may
 * be silent. Plain references throughout: in Node 20 the signals of AbortSignal.any and AbortSignal.timeout, and what
 * fetch keeps of a request once its headers are there, can be collected before they fire.
 */
export async function request<T>(
  context: HubContext,
  url: string,
  timeoutMs: number,
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
  try {
    const response = await fetch(url, { headers, signal }).catch(onBroken);
    if (response.ok) return await use(response, chunksOf(response));
    await response.body?.cancel();
    throw failures.statusFailure(response, context, file);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", onStop);
    controller.abort();
  }
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
  const { settings, repo } = context;
  try {
    const snapshot = new Snapshot(settings, repo, await commitOf(context));
    const listing = snapshot.listing ?? (await filesOf(context, snapshot.commit));
    await snapshot.remember(repo.revision, listing);
    return snapshot;
  } catch (error) {
    context.signal?.throwIfAborted();
    const what = `the listing of ${nameOf(repo)}`;
    const failure = failures.diskFailure(error, what, settings.cacheDir);
    // Whatever else we stumble over means an answer that no hub gives.
    if (failure instanceof UserError) throw failure;
    const isForm = failure instanceof TypeError;
    throw notAHub(context, isForm ? "its answer has another form" : messageOf(failure));
  }
}

async function commitOf(context: HubContext): Promise<string> {
  const { revision } = context.repo;
  if (isCommit(revision)) return revision;
  const url = `${apiOf(context)}/revision/${encodeURIComponent(revision)}?expand=sha`;
  try {
    const { sha } = (await getJson(context, url)).json as { sha: unknown };
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
  const { json } = await getJson(context, `${apiOf(context)}/refs`);
  const { branches, tags } = json as Record<"branches" | "tags", { name: string }[]>;
  return [...branches, ...tags].map(({ name }) => name);
}

/** As a listing has it; `lfs` has the hash and the size of a large file. */
type TreeEntry = { type: string; path: string; oid: string; size: number; lfs?: TreeEntry };

async function filesOf(context: HubContext, commit: string): Promise<Map<string, RepoFile>> {
  const listing = new Map<string, RepoFile>();
  const pages = new Set<string>();
  let url: string | undefined = `${apiOf(context)}/tree/${commit}?recursive=true`;
  let bytesLeft = MAX_LISTING_BYTES;
  while (url !== undefined) {
    if (pages.has(url) || pages.size === MAX_PAGES)
      throw notAHub(context, `its listing has no end within ${pages.size} pages`);
    pages.add(url);
    const page = await getJson(context, url, bytesLeft);
    for (const { type, path, size, oid, lfs } of page.json as TreeEntry[]) {
      checkInside(path);
      if (type !== "file") continue;
      const large = lfs && { lfs_sha256: lfs.oid, lfs_size: lfs.size };
      const file = { size: lfs?.size ?? size, blob_id: oid, ...large };
      if (!isSound(file)) throw notAHub(context, `${path} has no size or checksum`);
      listing.set(path, file);
    }
    bytesLeft -= page.numBytes;
    url = page.next && new URL(page.next, url).href;
  }
  return listing;
}

const apiOf = ({ settings, repo }: HubContext) =>
  `${settings.endpoint}/api/${repo.type}s/${repo.id}`;

/** A short answer in full, and the address of its next page; repeated where that may help. */
function getJson(context: HubContext, url: string, maxBytes = MAX_LISTING_BYTES) {
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
    return { json, numBytes, next: /<([^>]*)>; *rel="next"/.exec(headers.get("link") ?? "")?.[1] };
  };
  const { metadataTimeoutMs } = context.settings;
  return retrying(context, () => request(context, url, metadataTimeoutMs, read));
}
