// Files of one commit into the cache: each blob once, resumed where it broke off, verified before it gets its name.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { invariant, UserError } from "../core/errors.ts";
import { flush } from "../formats/atomic.ts";
import { type RepoCache, type RepoFile, type RepoListing, statIfPresent } from "./cache.ts";
import { diskFailure, diskFull, networkFailure } from "./failures.ts";
import { withLock } from "../formats/lock.ts";
import { type HubContext, request, retrying } from "./request.ts";

/** How far one file is. */
export interface DownloadProgress {
  readonly file: string;
  readonly receivedBytes: number;
  readonly totalBytes: number;
}

export interface DownloadContext extends HubContext {
  readonly cache: RepoCache;
  readonly commit: string;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
}

const PARALLEL_FILES = 4;

/** Brings the named files of a commit into its snapshot; those already there cost nothing. */
export async function downloadFiles(
  context: DownloadContext,
  listing: RepoListing,
  names: readonly string[],
): Promise<void> {
  const stop = new AbortController();
  const signal = context.signal ? AbortSignal.any([context.signal, stop.signal]) : stop.signal;
  const waiting = [...names];
  const worker = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const file = listing.get(name);
      invariant(file !== undefined, `${name} is not in the listing`);
      await downloadFile({ ...context, signal }, name, file);
    }
  };
  const workers = Array.from({ length: PARALLEL_FILES }, worker);
  try {
    await Promise.all(workers);
  } catch (error) {
    stop.abort(error);
    await Promise.allSettled(workers);
    throw error;
  }
}

async function downloadFile(context: DownloadContext, name: string, file: RepoFile): Promise<void> {
  const { cache, commit, settings, signal } = context;
  if (await cache.has(commit, name, file.sizeBytes)) return;
  const blob = cache.blob(file);
  const place = async () => {
    // Another process may have brought it while we waited.
    if (await cache.has(commit, name, file.sizeBytes)) return;
    const isNewBlob = (await statIfPresent(blob))?.size !== file.sizeBytes;
    if (isNewBlob) await downloadBlob(context, name, file, blob);
    await cache.place(commit, name, file, { useSymlinks: settings.useSymlinks, isNewBlob });
  };
  try {
    await mkdir(dirname(blob), { recursive: true });
    await withLock(cache.lock(file), place, signal);
  } catch (error) {
    throw diskFailure(error, described(name, file), settings.cacheDir);
  }
}

const described = (name: string, { sizeBytes }: RepoFile) => `${name} (${sizeBytes} bytes)`;

async function downloadBlob(
  context: DownloadContext,
  name: string,
  file: RepoFile,
  blob: string,
): Promise<void> {
  const { settings, onProgress } = context;
  const incomplete = `${blob}.incomplete`;
  const resumedBytes = (await statIfPresent(incomplete))?.size ?? 0;
  const { bavail, bsize } = await statfs(dirname(blob));
  if (file.sizeBytes - Number(resumedBytes) > bavail * bsize)
    throw diskFull(described(name, file), settings.cacheDir);

  let received = 0;
  const onBytes = (bytes: number) => {
    received = bytes;
    onProgress?.({ file: name, receivedBytes: bytes, totalBytes: file.sizeBytes });
  };
  // Twice where the part that an earlier run left may be what is bad.
  for (let attempts = resumedBytes > 0 ? 2 : 1; attempts > 0; attempts--) {
    const attempt = () => append(context, name, file, incomplete, onBytes);
    await retrying(context, attempt, () => received);
    if (await isSound(incomplete, file)) return rename(incomplete, blob);
    await rm(incomplete, { force: true });
  }
  throw new UserError(`${name} arrived corrupted: its checksum is not the one the hub states`, {
    hint: "run it again; if it stays so, a proxy or mirror between you and the hub alters files",
    exitCode: 1,
  });
}

/** Continues an incomplete file to its full size and on to the disk. */
async function append(
  context: DownloadContext,
  name: string,
  { sizeBytes }: RepoFile,
  incomplete: string,
  onBytes: (received: number) => void,
): Promise<void> {
  const { settings, repo, commit } = context;
  const prefix = repo.type === "dataset" ? "datasets/" : "";
  const path = name.split("/").map(encodeURIComponent).join("/");
  const url = `${settings.endpoint}/${prefix}${repo.id}/resolve/${commit}/${path}`;
  const present = (await statIfPresent(incomplete))?.size;
  let size = Number(present ?? 0);
  if (size > sizeBytes) size = 0;
  onBytes(size);
  const receive = async (response: Response, chunks: AsyncIterable<Uint8Array>) => {
    // A server that knows no ranges answers 200 with the whole file.
    if (response.status !== 206) size = 0;
    const handle = await open(incomplete, size > 0 ? "a" : "w");
    try {
      for await (const chunk of chunks) {
        size += chunk.length;
        if (size > sizeBytes) return; // not the file that was listed: its checksum will say so
        await handle.writeFile(chunk);
        onBytes(size);
      }
    } finally {
      await handle.close();
      if (size === 0 && sizeBytes > 0) await rm(incomplete, { force: true });
    }
  };
  const headers = { "accept-encoding": "identity", ...(size > 0 && { range: `bytes=${size}-` }) };
  const options = { headers, timeoutMs: settings.downloadTimeoutMs, file: name };
  if (size < sizeBytes || present === undefined) await request(context, url, options, receive);
  if (size < sizeBytes)
    throw networkFailure(new Error(`${size} of ${sizeBytes} bytes`), settings, name);
  await flush(incomplete);
}

/** True if size and content are those that the hub listed: sha256 for large files, Git's blob hash for others. */
async function isSound(path: string, file: RepoFile): Promise<boolean> {
  if ((await statIfPresent(path))?.size !== file.sizeBytes) return false;
  const hash = createHash(file.sha256 === undefined ? "sha1" : "sha256");
  if (file.sha256 === undefined) hash.update(`blob ${file.sizeBytes}\0`);
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest("hex") === (file.sha256 ?? file.gitSha1);
}
