// Requests to the hub: the token goes to the hub's own address only, passing failures repeat, and all become errors that
// say what to do; none of them ever holds the token.

import { setTimeout as sleep } from "node:timers/promises";
import { codeOf, messageOf, orElse, UserError } from "../core/errors.ts";
import { writeFailure } from "../files/atomic.ts";
import type { HubContext, HubSettings } from "./environment.ts";
import { nameOf, suggestion, type HubRepo } from "./repo-id.ts";

const MAX_FAILURES = 5;
const LONGEST_WAIT_MS = 120_000;

/** To a commit the hub answers when it has looked at all of it. */
const WRITING_TAKES = 6;

interface RequestOptions extends RequestInit {
  /** Absent: a listing, or what is sent. */
  readonly file?: string;
  /** What an answer means that is not a success; with its text. */
  readonly failure?: typeof statusFailure;
  readonly onSent?: (numBytes: number) => void;
}

/**
 * Sends one request, for a `file` or a listing, and gives `use` a successful answer and the chunks of its body, between
 * which the hub may be silent for its time. Plain references throughout: in Node 20 the signals of AbortSignal.any and
 * AbortSignal.timeout, and what fetch keeps of a request once its headers are there, can be collected before they fire.
 */
export async function request<T>(
  context: HubContext,
  url: string,
  use: (response: Response, chunks: AsyncIterable<Uint8Array>) => Promise<T>,
  { file, failure = statusFailure, onSent, ...init }: RequestOptions = {},
): Promise<T> {
  const { settings } = context;
  const outer = init.signal ?? context.signal;
  const headers = new Headers(init.headers);
  // A redirect to another host loses this header too: fetch sees to that.
  if (settings.token && new URL(url).origin === new URL(settings.endpoint).origin)
    headers.set("authorization", `Bearer ${settings.token.reveal()}`);
  const { send, close } = await sender(settings); // which refuses a wrong proxy
  const controller = new AbortController();
  const { signal } = controller;
  const readingMs = file === undefined ? settings.metadataTimeoutMs : settings.downloadTimeoutMs;
  const timeoutMs = init.body ? WRITING_TAKES * readingMs : readingMs;
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
  try {
    const { body } = init;
    const told = (numBytes: number) => [timer.refresh(), onSent?.(numBytes)];
    const sent = body instanceof Blob ? { body: counted(body, told) } : {};
    const response = await send(url, { ...init, ...sent, headers, signal }).catch(onBroken);
    if (response.ok) return await use(response, chunksOf(response));
    const text = await response.text().catch(() => "");
    throw failure(response, context, file, text);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", onStop);
    controller.abort();
    close();
  }
}

/** The same content, which tells how much of it was read; fetch states its length, and reads it again for a repetition. */
function counted(blob: Blob, onBytes: (numBytes: number) => void): Blob {
  const count = (chunk: Uint8Array, to: TransformStreamDefaultController<Uint8Array>) => {
    onBytes(chunk.length);
    to.enqueue(chunk);
  };
  const stream = () => blob.stream().pipeThrough(new TransformStream({ transform: count }));
  return Object.defineProperty(blob.slice(), "stream", { value: stream });
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
export async function retrying<T>(of: HubContext, attempt: () => Promise<T>, progress = () => 0) {
  const { settings, signal } = of;
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

/** One that may pass when the request is repeated, after the wait that the hub asks for. */
export class TransientError extends UserError {
  waitMs: number | undefined;
}

export class NoRevisionError extends UserError {}

/** Of work that failed, not of usage. */
export const failed = (message: string, hint: string, cause?: unknown) =>
  new UserError(message, { hint, exitCode: 1, cause });

/** The page of the repository, under which its files are too. */
export const pageOf = ({ settings: { endpoint }, repo: { type, id } }: HubContext): string =>
  `${endpoint}/${type === "dataset" ? "datasets/" : ""}${id}`;

/** The error for an answer that is not a success; `file` is undefined for a listing. */
export function statusFailure(response: Response, context: HubContext, file?: string, text = "") {
  const { status, headers } = response;
  const { endpoint, token } = context.settings;
  const { repo } = context;
  const [name, page] = [nameOf(repo), pageOf(context)];
  const code = headers.get("x-error-code");
  const wrong = (message: string, hint: string) => new UserError(message, { hint });
  const see = `see ${page}/tree/main`;
  if (code === "GatedRepo" || (status === 403 && code === null))
    return wrong(
      `${name} is gated: ${token ? "the account of your token has no access" : "a token of an account with access is needed"}`,
      `ask for access at ${page}, then set HF_TOKEN to a token of that account that may read gated repositories`,
    );
  if (status === 401 && token && code !== "RepoNotFound")
    return wrong(
      `${endpoint} refuses the token in use (status 401) for ${name}`,
      "make a new one on the hub's token page and set HF_TOKEN, or unset it for public repositories",
    );
  if (code === "RevisionNotFound")
    return new NoRevisionError(`${name} has no revision "${repo.revision}"`, { hint: see });
  if (status === 404 && file !== undefined && code !== "RepoNotFound")
    return wrong(`${name} has no file "${file}"`, see);
  if (status === 401 || status === 404) {
    const elsewhere = repo.type === "model" ? " (no folder of that name exists here either)" : "";
    const check = `check the name${elsewhere}${token ? "" : "; for a private one set HF_TOKEN"}`;
    return wrong(`${endpoint} has no ${token ? "" : "public "}${name}`, suggestion(repo) ?? check);
  }
  const said = orElse(() => (JSON.parse(text) as { error?: unknown }).error, undefined);
  const because = typeof said === "string" ? `: ${said}` : "";
  const answer = `${endpoint} answered status ${status}, at ${file ?? name}${because}`;
  if (status !== 429 && status !== 408 && status < 500) return failed(answer, see);
  const failure = new TransientError(answer + (status === 429 ? ": it asks to slow down" : ""), {
    hint: `try again in some minutes; what has arrived is kept${token ? "" : ", and with HF_TOKEN set the limits are higher"}`,
    exitCode: 1,
  });
  // Seconds; the other form, a date, is not used by the hub.
  const seconds = Number(headers.get("retry-after") ?? Number.NaN);
  if (seconds >= 0) failure.waitMs = seconds * 1000;
  return failure;
}

// These do not mend themselves in the seconds that a repetition would wait.
const NO_ROUTE =
  /^(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ENETDOWN|ERR_TLS|UNABLE_TO_)|CERT|: Proxy response/;

/** The error for a request that brought no answer, or broke off. */
export function networkFailure(error: unknown, context: HubContext, file?: string): UserError {
  const { endpoint, proxies } = context.settings;
  const { offlineWay = "give a local folder or file instead" } = context;
  const what = file ?? nameOf(context.repo);
  let cause = error;
  while (cause instanceof Error && cause.cause instanceof Error) cause = cause.cause;
  const code = codeOf(cause) ?? "";
  const reason = messageOf(cause) || code || "no answer";
  if (NO_ROUTE.test(`${code}: ${reason}`))
    return failed(
      `no network: cannot reach ${endpoint} for ${what} (${reason})`,
      `check the connection${proxies ? ", the proxy" : ""} and HF_ENDPOINT, or ${offlineWay}`,
      error,
    );
  return new TransientError(`the connection to ${endpoint} broke off at ${what} (${reason})`, {
    hint: "run it again: what has arrived is kept and the rest will follow",
    exitCode: 1,
    cause: error,
  });
}

/** The error for an answer that makes no sense. */
export const notAHub = ({ settings, repo }: HubContext, reason: string): UserError =>
  failed(
    `${settings.endpoint} does not answer as a hub does for ${nameOf(repo)} (${reason})`,
    "check HF_ENDPOINT, and that no login page of a network stands between",
  );

/** The error for a write that failed; anything else comes back as it is. */
export function diskFailure(error: unknown, what: string, { cacheDir }: HubContext["settings"]) {
  const more = "or set HF_HOME to a folder on another disk; what has arrived is kept";
  return writeFailure(`${what} into the cache ${cacheDir}`, error, more);
}

/** The error for something that is not cached while no request may be made. */
export function offlineFailure(repo: HubRepo, missing: string, cacheDir: string): UserError {
  const advice = "run once with HF_HUB_OFFLINE unset and a network, or give a local path";
  const message = `offline, and ${missing} of ${nameOf(repo)} is not in the cache ${cacheDir}`;
  return failed(message, suggestion(repo) ?? advice);
}
