// Files of one commit into the cache: each blob once, resumed where it broke off, verified before it gets its name.

import { open, rename, rm, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { invariant } from "../core/errors.ts";
import { statIfPresent, makeFolder } from "../files/atomic.ts";
import { withLock } from "../files/lock.ts";
import { hashOfFile } from "../files/safetensors.ts";
import { contentHash, type RepoFile, type Snapshot } from "./cache.ts";
import type { HubContext } from "./environment.ts";
import { diskFailure, failed, networkFailure, pageOf, request, retrying } from "./request.ts";

const PARALLEL_FILES = 4;

type Download = HubContext & Readonly<{ name: string; file: RepoFile; url: string; blob: string }>;

const hashOf = (file: RepoFile) => file.lfs_sha256 ?? file.blob_id;

/** Brings the named files into the snapshot, whose listing is known; those already there cost nothing. */
export async function downloadFiles(context: HubContext, snapshot: Snapshot, names: string[]) {
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, context.signal ?? stop.signal]);
  const waiting = names.values();
  const worker = async () => {
    for (const name of waiting) await bring({ ...context, signal }, snapshot, name);
  };
  const first = (error: unknown) => stop.abort(error); // stops the others; later failures follow from it
  await Promise.all(Array.from({ length: PARALLEL_FILES }, () => worker().catch(first)));
  context.signal?.throwIfAborted();
  stop.signal.throwIfAborted();
}

async function bring(context: HubContext, snapshot: Snapshot, name: string): Promise<void> {
  if (await snapshot.has(name)) return;
  const file = snapshot.listing?.get(name);
  invariant(file !== undefined, `${name} is not in the listing`);
  const { blob, lock } = snapshot.placesOf(hashOf(file));
  const path = name.split("/").map(encodeURIComponent).join("/");
  const url = `${pageOf(context)}/resolve/${snapshot.commit}/${path}`;
  const place = async () => {
    // Another process may have brought it while we waited.
    if (await snapshot.has(name)) return;
    const isNew = (await statIfPresent(blob))?.size !== file.size;
    if (isNew) await download({ ...context, name, file, url, blob });
    await snapshot.place(name, blob, isNew);
  };
  try {
    await makeFolder(dirname(blob));
    await withLock(lock, place, context.signal);
  } catch (error) {
    throw diskFailure(error, `${name} (${file.size} bytes)`, context.settings);
  }
}

async function download(job: Download): Promise<void> {
  const { name, file, blob, onProgress } = job;
  const incomplete = `${blob}.incomplete`;
  const resumedBytes = (await statIfPresent(incomplete))?.size ?? 0;
  const { bavail, bsize } = await statfs(dirname(blob));
  if (file.size - resumedBytes > bavail * bsize)
    throw Object.assign(new Error("no room"), { code: "ENOSPC" });

  let received = 0;
  const onBytes = (receivedBytes: number) => {
    received = receivedBytes;
    onProgress?.({ file: name, receivedBytes, totalBytes: file.size });
  };
  const attempt = () => append(job, incomplete, onBytes);
  // Twice where the part that an earlier run left may be what is bad.
  for (let attempts = resumedBytes > 0 ? 2 : 1; attempts > 0; attempts--) {
    await retrying(job, attempt, () => received);
    const hash = contentHash(file.lfs_sha256 !== undefined, file.size);
    if ((await hashOfFile(incomplete, hash)) === hashOf(file)) return rename(incomplete, blob);
    await rm(incomplete);
  }
  const hint =
    "run it again; if it stays so, a proxy or mirror between you and the hub alters files";
  throw failed(`${name} arrived corrupted: its checksum is not the one the hub states`, hint);
}

/** Continues an incomplete file to its full size and on to the disk. */
async function append(job: Download, incomplete: string, onBytes: (received: number) => void) {
  const { name, file, url } = job;
  const handle = await open(incomplete, "a");
  let { size } = await handle.stat();
  const receive = async (response: Response, chunks: AsyncIterable<Uint8Array>) => {
    // A server that knows no ranges answers 200 with the whole file.
    if (response.status !== 206 && size > 0) await handle.truncate((size = 0));
    for await (const chunk of chunks) {
      size += chunk.length;
      if (size > file.size) return; // not the file that was listed: its checksum will say so
      await handle.writeFile(chunk);
      onBytes(size);
    }
  };
  try {
    if (size > file.size) await handle.truncate((size = 0));
    onBytes(size);
    const headers = { "accept-encoding": "identity", ...(size > 0 && { range: `bytes=${size}-` }) };
    if (size < file.size) await request(job, url, receive, { file: name, headers });
    if (size < file.size)
      throw networkFailure(new Error(`${size} of ${file.size} bytes`), job, name);
    await handle.sync();
  } finally {
    await handle.close();
    if (size === 0 && file.size > 0) await rm(incomplete);
  }
}
