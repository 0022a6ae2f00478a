// One request to the hub: the token goes to the hub's own address only, failures become errors, passing ones repeat.

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
  const signal = context.signal ? AbortSignal.any([context.signal, init.signal]) : init.signal;
  let response: Response;
  try {
    response = await fetch(url, { headers, signal });
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
      const timeout = AbortSignal.timeout(context.settings.metadataTimeoutMs);
      const response = await send(context, url, { headers: init?.headers ?? {}, signal: timeout });
      try {
        return new Response(await response.arrayBuffer(), response);
      } catch (error) {
        context.signal?.throwIfAborted();
        throw networkFailure(error, context.settings, nameOf(context.repo));
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
