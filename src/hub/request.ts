// Requests to the hub: the token goes to the hub's own address only, failures become errors, passing ones repeat.

import { setTimeout as sleep } from "node:timers/promises";
import type { HubContext, HubSettings } from "./environment.ts";
import { networkFailure, statusFailure, TransientError } from "./failures.ts";

const MAX_FAILURES = 5;
const LONGEST_WAIT_MS = 120_000;

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
    throw networkFailure(error, context, file);
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
    throw statusFailure(response, context, file);
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
      if (!(error instanceof TransientError)) throw error;
      if (progress() > before) numFailures = 0;
      before = progress();
      const waitMs = error.waitMs ?? settings.retryDelayMs * 2 ** numFailures;
      if (numFailures + 1 >= MAX_FAILURES || waitMs > LONGEST_WAIT_MS) throw error;
      await sleep(waitMs, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}
