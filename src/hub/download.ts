// Files of one commit into the cache: each blob once, resumed where it broke off, verified before it gets its name.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, statfs, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { invariant, UserError } from "../core/errors.ts";
import { type RepoCache, type RepoFile, type RepoListing, statIfPresent } from "./cache.ts";
import { diskFailure, diskFull, networkFailure } from "./failures.ts";
import { withLock } from "./lock.ts";
import { bodyOf, type HubContext, retrying, send, watchdog } from "./request.ts";

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
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift())
      await downloadFile({ ...context, signal }, name, entryOf(listing, name));
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

function entryOf(listing: RepoListing, name: string): RepoFile {
  const file = listing.get(name);
  invariant(file !== undefined, `${name} is not in the listing`);
  return file;
}

async function downloadFile(context: DownloadContext, name: string, file: RepoFile): Promise<void> {
  const { cache, commit, settings, signal } = context;
  if (await cache.has(commit, name, file.sizeBytes)) return;
  const blob = cache.blob(file);
  const what = `${name} (${file.sizeBytes} bytes)`;
  try {
    await mkdir(dirname(blob), { recursive: true });
    await withLock(
      cache.lock(settings.cacheDir, file),
      async () => {
        // Another process may have brought it while we waited.
        if (await cache.has(commit, name, file.sizeBytes)) return;
        const isNewBlob = (await statIfPresent(blob))?.size !== file.sizeBytes;
        if (isNewBlob) await downloadBlob(context, name, file, blob);
        await cache.place(commit, name, file, { useSymlinks: settings.useSymlinks, isNewBlob });
      },
      signal,
    );
  } catch (error) {
    throw diskFailure(error, what, settings.cacheDir);
  }
}

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
    throw diskFull(`${name} (${file.sizeBytes} bytes)`, settings.cacheDir);

  let received = 0;
  const onBytes = (bytes: number) => {
    received = bytes;
    onProgress?.({ file: name, receivedBytes: bytes, totalBytes: file.sizeBytes });
  };
  const fill = () =>
    retrying(
      context,
      () => append(context, name, file, incomplete, onBytes),
      () => received,
    );
  await fill();
  let isSound = await verify(incomplete, file);
  if (!isSound && resumedBytes > 0) {
    // The part that an earlier run left may be what is bad.
    await rm(incomplete, { force: true });
    await fill();
    isSound = await verify(incomplete, file);
  }
  if (!isSound) {
    await rm(incomplete, { force: true });
    throw new UserError(`${name} arrived corrupted: its checksum is not the one the hub states`, {
      hint: "run it again; if it stays so, a proxy or mirror between you and the hub alters files",
      exitCode: 1,
    });
  }
  await rename(incomplete, blob);
}

/** Continues an incomplete file to its full size and on to the disk. */
async function append(
  context: DownloadContext,
  name: string,
  file: RepoFile,
  path: string,
  onBytes: (received: number) => void,
): Promise<void> {
  const handle = await open(path, "a");
  try {
    let size = (await handle.stat()).size;
    if (size > file.sizeBytes) await handle.truncate((size = 0));
    onBytes(size);
    if (size < file.sizeBytes) await receive(context, name, file, handle, size, onBytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function receive(
  context: DownloadContext,
  name: string,
  file: RepoFile,
  handle: FileHandle,
  offset: number,
  onBytes: (received: number) => void,
): Promise<void> {
  const { settings, repo, commit } = context;
  const prefix = repo.type === "dataset" ? "datasets/" : "";
  const path = name.split("/").map(encodeURIComponent).join("/");
  const url = `${settings.endpoint}/${prefix}${repo.id}/resolve/${commit}/${path}`;

  const { signal, refresh, release } = watchdog(settings.downloadTimeoutMs, context.signal);
  try {
    const headers = {
      "accept-encoding": "identity",
      ...(offset > 0 && { range: `bytes=${offset}-` }),
    };
    const response = await send(context, url, { headers, signal }, name);
    let size = offset;
    // A server that knows no ranges answers 200 with the whole file.
    if (offset > 0 && response.status !== 206) await handle.truncate((size = 0));
    for await (const chunk of chunksOf(response, context, signal, name)) {
      refresh();
      size += chunk.length;
      if (size > file.sizeBytes) break; // not the file that was listed: verification will say so
      await handle.writeFile(chunk);
      onBytes(size);
    }
    if (size < file.sizeBytes)
      throw networkFailure(new Error(`${size} of ${file.sizeBytes} bytes`), settings, name);
  } finally {
    release();
  }
}

async function* chunksOf(
  response: Response,
  context: HubContext,
  signal: AbortSignal,
  name: string,
): AsyncGenerator<Uint8Array> {
  try {
    yield* bodyOf(response, signal);
  } catch (error) {
    context.signal?.throwIfAborted();
    throw networkFailure(error, context.settings, name);
  }
}

/** True if size and content are those that the hub listed: sha256 for large files, Git's blob hash for others. */
async function verify(path: string, file: RepoFile): Promise<boolean> {
  if ((await statIfPresent(path))?.size !== file.sizeBytes) return false;
  const hash = createHash(file.sha256 === undefined ? "sha1" : "sha256");
  if (file.sha256 === undefined) hash.update(`blob ${file.sizeBytes}\0`);
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest("hex") === (file.sha256 ?? file.gitSha1);
}
