// What can go wrong between us and the hub, as errors that say what to do; none of them ever holds the token.

import { codeOf, messageOf, UserError } from "../core/errors.ts";
import { writeFailure } from "../files/atomic.ts";
import type { HubContext } from "./environment.ts";
import { nameOf, suggestion, type HubRepo } from "./repo-id.ts";

/** One that may pass when the request is repeated, after the wait that the hub asks for. */
export class TransientError extends UserError {
  waitMs: number | undefined;
}

export class NoRevisionError extends UserError {}

/** Of work that failed, not of usage. */
export const failed = (message: string, hint: string, cause?: unknown) =>
  new UserError(message, { hint, exitCode: 1, cause });

/** The page of the repository, under which its files are too. */
export function pageOf({ settings: { endpoint }, repo: { type, id } }: HubContext): string {
  return `${endpoint}/${type === "dataset" ? "datasets/" : ""}${id}`;
}

/** The error for an answer that is not a success; `file` is undefined for a listing. */
export function statusFailure(response: Response, context: HubContext, file?: string): UserError {
  const { status, headers } = response;
  const { repo } = context;
  const { endpoint, token } = context.settings;
  const code = headers.get("x-error-code");
  const name = nameOf(repo);
  const page = pageOf(context);
  if (code === "GatedRepo" || (status === 403 && code === null)) {
    const account = token
      ? "the account of your token has no access"
      : "a token of an account with access is needed";
    return new UserError(`${name} is gated: ${account}`, {
      hint: `ask for access at ${page}, then set HF_TOKEN to a token of that account that may read gated repositories`,
    });
  }
  if (status === 401 && token && code !== "RepoNotFound")
    return new UserError(`${endpoint} refuses the token in use (status 401) for ${name}`, {
      hint: "make a new one on the hub's token page and set HF_TOKEN, or unset it for public repositories",
    });
  const see = { hint: `see ${page}/tree/main` };
  if (code === "RevisionNotFound")
    return new NoRevisionError(`${name} has no revision "${repo.revision}"`, see);
  if (status === 404 && file !== undefined && code !== "RepoNotFound")
    return new UserError(`${name} has no file "${file}"`, see);
  if (status === 401 || status === 404) {
    const elsewhere = repo.type === "model" ? " (no folder of that name exists here either)" : "";
    const check = `check the name${elsewhere}${token ? "" : "; for a private one set HF_TOKEN"}`;
    const hint = suggestion(repo) ?? check;
    return new UserError(`${endpoint} has no ${token ? "" : "public "}${name}`, { hint });
  }
  const where = `at ${file ?? name}`;
  if (status !== 429 && status !== 408 && status < 500)
    return failed(`${endpoint} answered status ${status}, ${where}`, see.hint);
  const isTooMany = status === 429;
  const answer = isTooMany ? "asks to slow down (status 429)" : `answered status ${status}`;
  const patience = `try again in some minutes${token ? "" : ", or set HF_TOKEN for a higher limit"}`;
  const failure = new TransientError(`${endpoint} ${answer}, ${where}`, {
    hint: isTooMany ? patience : "try again later; what has arrived is kept",
    exitCode: 1,
  });
  // Seconds; the other form, a date, is not used by the hub.
  const seconds = Number(headers.get("retry-after") ?? Number.NaN);
  if (seconds >= 0) failure.waitMs = seconds * 1000;
  return failure;
}

// These do not mend themselves in the seconds that a repetition would wait.
const NO_ROUTE =
  /^(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ENETDOWN|ERR_TLS.*|.*CERT.*|UNABLE_TO_.*)$/;

/** The error for a request that brought no answer, or broke off. */
export function networkFailure(error: unknown, context: HubContext, file?: string): UserError {
  const { endpoint } = context.settings;
  const what = file ?? nameOf(context.repo);
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = codeOf(cause) ?? "";
  const reason = messageOf(cause) || code || "no answer";
  if (NO_ROUTE.test(code)) {
    const hint = "check the connection and HF_ENDPOINT, or give a local folder or file instead";
    return failed(`no network: cannot reach ${endpoint} for ${what} (${reason})`, hint, error);
  }
  const hint = "run it again: what has arrived is kept and the rest will follow";
  const message = `the connection to ${endpoint} broke off at ${what} (${reason})`;
  return new TransientError(message, { hint, exitCode: 1, cause: error });
}

/** The error for an answer that makes no sense. */
export function notAHub({ settings, repo }: HubContext, reason: string): UserError {
  return failed(
    `${settings.endpoint} does not answer as a hub does for ${nameOf(repo)} (${reason})`,
    "check HF_ENDPOINT, and that no login page of a network stands between",
  );
}

/** The error for a write that failed; anything else comes back as it is. */
export function diskFailure(error: unknown, what: string, cacheDir: string): unknown {
  const code = codeOf(error instanceof UserError ? error.cause : error) ?? "";
  if (["ENOSPC", "EDQUOT"].includes(code))
    return failed(
      `the disk is full: no room for ${what} in ${cacheDir}`,
      "free some space, or set HF_HOME to a folder on a larger disk; what has arrived is kept",
    );
  if (!["EACCES", "EROFS", "EPERM"].includes(code)) return writeFailure(cacheDir, error);
  const message = `cannot write ${what} into the cache ${cacheDir} (${code})`;
  return failed(message, "set HF_HOME to a folder that you may write to", error);
}

/** The error for something that is not cached while no request may be made. */
export function offlineFailure(repo: HubRepo, missing: string, cacheDir: string): UserError {
  const advice = "run once with HF_HUB_OFFLINE unset and a network, or give a local path";
  const message = `offline, and ${missing} of ${nameOf(repo)} is not in the cache ${cacheDir}`;
  return failed(message, suggestion(repo) ?? advice);
}
