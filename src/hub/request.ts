// One request to the hub: the token goes to the hub's own address only, failures become errors, passing ones repeat.

import { UserError } from "../core/errors.ts";
import type { HubSettings } from "./environment.ts";
import { pause } from "./lock.ts";
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

/** Aborts when nothing came for a while, or when the caller does. */
export interface Watchdog {
  readonly signal: AbortSignal;
  refresh(): void;
  release(): void;
}

/**
 * Plain references throughout: in Node 20 the signals of AbortSignal.any and AbortSignal.timeout, and what fetch keeps
 * of a request once its headers are there, can be collected before they fire.
 */
export function watchdog(timeoutMs: number, outer: AbortSignal | undefined): Watchdog {
  const controller = new AbortController();
  const timer = setTimeout(
    () => controller.abort(new Error(`timeout: no data for ${timeoutMs / 1000} s`)),
    timeoutMs,
  );
  const onOuter = () => controller.abort(outer?.reason);
  if (outer?.aborted) onOuter();
  outer?.addEventListener("abort", onOuter);
  return {
    signal: controller.signal,
    refresh: () => void timer.refresh(),
    release: () => {
      clearTimeout(timer);
      outer?.removeEventListener("abort", onOuter);
      controller.abort();
    },
  };
}

/** The chunks of an answer; throws the signal's reason when it aborts, whatever the connection does. */
export async function* bodyOf(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  // Ends a pending read.
  const cancel = () => void reader?.cancel().catch(() => undefined);
  signal.addEventListener("abort", cancel);
  try {
    for (;;) {
      const part = await reader?.read();
      signal.throwIfAborted();
      if (part === undefined || part.done) return;
      yield part.value;
    }
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

/** A successful answer, or an error; `file` is undefined for a listing. The caller reads or cancels the body. */
export async function send(
  context: HubContext,
  url: string,
  init: { readonly headers?: HeadersInit; readonly signal: AbortSignal },
  file?: string,
): Promise<Response> {
  const { settings, repo } = context;
  const headers = new Headers(init.headers);
  // A redirect to another host loses this header too: fetch sees to that.
  if (settings.token && new URL(url).origin === new URL(settings.endpoint).origin)
    headers.set("authorization", `Bearer ${settings.token.reveal()}`);
  let response: Response;
  try {
    response = await fetch(url, { headers, signal: init.signal });
  } catch (error) {
    context.signal?.throwIfAborted();
    throw networkFailure(error, settings, file ?? nameOf(repo));
  }
  if (response.ok) return response;
  await response.body?.cancel();
  throw statusFailure(response, repo, settings, file);
}

/** A `fetch` for short answers, to hand to a library: reads the whole body, repeats what may pass. */
export function metadataFetch(context: HubContext): typeof fetch {
  return async (input, init) => {
    const url = input instanceof Request ? input.url : String(input);
    return retrying(context, async () => {
      const { signal, release } = watchdog(context.settings.metadataTimeoutMs, context.signal);
      try {
        const response = await send(context, url, { headers: init?.headers ?? {}, signal });
        const chunks: Uint8Array[] = [];
        for await (const chunk of bodyOf(response, signal)) chunks.push(chunk);
        return new Response(Buffer.concat(chunks), response);
      } catch (error) {
        context.signal?.throwIfAborted();
        if (error instanceof UserError || error instanceof TransientFailure) throw error;
        throw networkFailure(error, context.settings, nameOf(context.repo));
      } finally {
        release();
      }
    });
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
      await pause(waitMs, signal);
    }
  }
}
