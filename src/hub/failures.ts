// What can go wrong between us and the hub, as errors that say what to do; none of them ever holds the token.

import { codeOf, messageOf, UserError } from "../core/errors.ts";
import type { HubSettings } from "./environment.ts";
import { suggestion, type HubRepo } from "./repo-id.ts";

/** A failure that may pass when the request is repeated; `reported` is what the user sees when it does not. */
export class TransientFailure extends Error {
  readonly reported: UserError;
  /** The wait that the hub asked for. */
  readonly waitMs: number | undefined;

  constructor(reported: UserError, waitMs?: number) {
    super(reported.message, { cause: reported });
    this.reported = reported;
    this.waitMs = waitMs;
  }
}

/** The hub answered that there is no such repository, revision or file. */
export class NotOnHub extends UserError {
  readonly missing: "repository" | "revision" | "file";

  constructor(missing: NotOnHub["missing"], message: string, hint: string) {
    super(message, { hint });
    this.missing = missing;
  }
}

/** `model "org/name"`. */
export function nameOf(repo: HubRepo): string {
  return `${repo.type === "model" ? "model" : "data set"} "${repo.id}"`;
}

/** The error for an answer that is not a success; `file` is undefined for a listing. */
export function statusFailure(
  response: Response,
  repo: HubRepo,
  settings: HubSettings,
  file: string | undefined,
): UserError | TransientFailure {
  const { status } = response;
  const code = response.headers.get("x-error-code");
  const name = nameOf(repo);
  const { endpoint, token } = settings;
  const page = `${endpoint}/${repo.type === "dataset" ? "datasets/" : ""}${repo.id}`;
  const hint = `see ${page}/tree/main`;

  if (code === "GatedRepo" || (status === 403 && code === null)) {
    const why = token
      ? "the account of your token has no access"
      : "a token of an account with access is needed";
    return new UserError(`${name} is gated: ${why}`, {
      hint: `ask for access at ${page}, then set HF_TOKEN to a token of that account that may read gated repositories`,
    });
  }
  if (status === 401 && token !== undefined && code !== "RepoNotFound")
    return new UserError(`${endpoint} refuses the token in use (status 401) for ${name}`, {
      hint: "make a new one on the hub's token page and set HF_TOKEN, or unset it for public repositories",
    });
  if (code === "RevisionNotFound")
    return new NotOnHub("revision", `${name} has no revision "${repo.revision}"`, hint);
  if (status === 404 && file !== undefined && code !== "RepoNotFound")
    return new NotOnHub("file", `${name} has no file "${file}"`, hint);
  if (status === 401 || status === 404) {
    const elsewhere = repo.type === "model" ? " (no folder of that name exists here either)" : "";
    const check = `check the name${elsewhere}${token ? "" : "; for a private one set HF_TOKEN"}`;
    return new NotOnHub(
      "repository",
      `${endpoint} has no ${token ? "" : "public "}${name}`,
      suggestion(repo.type, repo.id) ?? check,
    );
  }
  const isTooMany = status === 429;
  const answer = isTooMany ? "asks to slow down (status 429)" : `answered status ${status}`;
  const patience = `try again in some minutes${token ? "" : ", or set HF_TOKEN for a higher limit"}`;
  const failed = new UserError(`${endpoint} ${answer}, at ${file ?? name}`, {
    hint: isTooMany ? patience : "try again later; what has arrived is kept",
    exitCode: 1,
  });
  const mayPass = isTooMany || status >= 500 || status === 408;
  return mayPass ? new TransientFailure(failed, retryAfterMs(response)) : failed;
}

// These do not mend themselves in the seconds that a repetition would wait.
const NO_ROUTE =
  /^(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ENETDOWN|ERR_TLS.*|.*CERT.*|UNABLE_TO_.*)$/;

/** The error for a request that brought no answer, or broke off. */
export function networkFailure(
  error: unknown,
  settings: HubSettings,
  what: string,
): UserError | TransientFailure {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = codeOf(cause);
  const reason = messageOf(cause) || code || "no answer";
  if (code !== undefined && NO_ROUTE.test(code))
    return new UserError(`no network: cannot reach ${settings.endpoint} for ${what} (${reason})`, {
      hint: "check the connection and HF_ENDPOINT, or give a local folder or file instead",
      exitCode: 1,
      cause: error,
    });
  return new TransientFailure(
    new UserError(`the connection to ${settings.endpoint} broke off at ${what} (${reason})`, {
      hint: "run it again: what has arrived is kept and the rest will follow",
      exitCode: 1,
      cause: error,
    }),
  );
}

/** The error for a write that the disk refused; anything else comes back as it is. */
export function diskFailure(error: unknown, what: string, cacheDir: string): unknown {
  const code = codeOf(error instanceof UserError ? error.cause : error);
  if (code === "ENOSPC" || code === "EDQUOT") return diskFull(what, cacheDir);
  if (code === "EACCES" || code === "EROFS" || code === "EPERM")
    return new UserError(`cannot write ${what} into the cache ${cacheDir} (${code})`, {
      hint: "set HF_HOME to a folder that you may write to",
      exitCode: 1,
      cause: error,
    });
  return error;
}

export function diskFull(what: string, cacheDir: string): UserError {
  return new UserError(`the disk is full: no room for ${what} in ${cacheDir}`, {
    hint: "free some space, or set HF_HOME to a folder on a larger disk; what has arrived is kept",
    exitCode: 1,
  });
}

/** The error for something that is not cached while no request may be made. */
export function offlineFailure(repo: HubRepo, missing: string, cacheDir: string): UserError {
  const advice = "run once with HF_HUB_OFFLINE unset and a network, or give a local path";
  return new UserError(
    `offline, and ${missing} of ${nameOf(repo)} is not in the cache ${cacheDir}`,
    { hint: suggestion(repo.type, repo.id) ?? advice, exitCode: 1 },
  );
}

// Seconds; the other form, a date, is not used by the hub.
function retryAfterMs(response: Response): number | undefined {
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
}
