// One request to the hub: the token goes to the hub's own address only, failures become errors, passing ones repeat.

import { buffer } from "node:stream/consumers";
import type { HubSettings } from "./environment.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { nameOf, networkFailure, statusFailure, TransientFailure } from "./failures.ts";
import type { HubRepo } from "./repo-id.ts";

const MAX_FAILURES = 5;
const LONGEST_WAIT_MS = 120_000;

/** What a request is made for. */
export interface HubContext {
  readonly settings: HubSettings;
  readonly repo: HubRepo;
  readonly signal?: AbortSignal | undefined;
}

export interface RequestOptions {
  readonly headers?: HeadersInit | undefined;
  /** How long the hub may be silent. */
  readonly timeoutMs: number;
  /** What is asked for; undefined for a listing. */
  readonly file?: string;
}

/**
 * Sends one request and gives `use` a successful answer and the chunks of its body. Plain references throughout: in
 * Node 20 the signals of AbortSignal.any and AbortSignal.timeout, and what fetch keeps of a request once its headers
 * are there, can be collected before they fire.
 */
export async function request<T>(
  context: HubContext,
  url: string,
  { headers: given, timeoutMs, file }: RequestOptions,
  use: (response: Response, chunks: AsyncIterable<Uint8Array>) => Promise<T>,
): Promise<T> {
  const { settings, repo, signal: outer } = context;
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
    throw networkFailure(error, settings, file ?? nameOf(repo));
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
    throw statusFailure(response, repo, settings, file);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", onStop);
    controller.abort();
  }
}

/** A `fetch` for short answers, to hand to a library: reads the whole body, repeats what may pass. */
export function metadataFetch(context: HubContext): typeof fetch {
  const timeoutMs = context.settings.metadataTimeoutMs;
  return async (input, init) => {
    const url = input instanceof Request ? input.url : String(input);
    const options = { headers: init?.headers, timeoutMs };
    const whole = async (response: Response, chunks: AsyncIterable<Uint8Array>) =>
      new Response(await buffer(chunks), response);
    return retrying(context, () => request(context, url, options, whole));
  };
}

/**
 * Repeats `attempt` after failures that may pass, with doubling waits or those that the hub asks for,
 * until it has failed five times without `progress` having grown.
 */
export async function retrying<T>(
  { settings, signal }: Pick<HubContext, "settings" | "signal">,
  attempt: () => Promise<T>,
  progress: () => number = () => 0,
): Promise<T> {
  let before = progress();
  for (let failures = 0; ; failures++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof TransientFailure)) throw error;
      const now = progress();
      if (now > before) failures = 0;
      before = now;
      const waitMs = error.waitMs ?? settings.retryDelayMs * 2 ** failures;
      if (failures + 1 >= MAX_FAILURES || waitMs > LONGEST_WAIT_MS) throw error.reported;
      await sleep(waitMs, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}
