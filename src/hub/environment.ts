// Settings of the hub client from the environment variables that huggingface_hub defines; the variables are handed in.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import type { HubRepo } from "./repo-id.ts";

export interface HubSettings {
  /** Without a trailing slash, e.g. `https://huggingface.co`. */
  readonly endpoint: string;
  /** The folder that holds `models--org--name` and `datasets--org--name`. */
  readonly cacheDir: string;
  /** A function, so that no log, JSON or inspection shows it. */
  readonly token: { readonly reveal: () => string } | undefined;
  /** No request is made; only what is cached is used. */
  readonly offline: boolean;
  /** The hub is asked what a branch or tag means now, even where it is cached; `offline` overrules it. */
  readonly refresh: boolean;
  /** How long the hub may be silent while it lists. */
  readonly metadataTimeoutMs: number;
  /** How long a download may be silent. */
  readonly downloadTimeoutMs: number;
  /** Snapshots hold links to blobs; without, the files themselves. */
  readonly useSymlinks: boolean;
  /** First wait before a request is repeated; doubles each time. */
  readonly retryDelayMs: number;
}

/** What a request is made for. */
export interface HubContext {
  readonly settings: HubSettings;
  readonly repo: HubRepo;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
}

/** How far one file is. */
export interface DownloadProgress {
  readonly file: string;
  readonly receivedBytes: number;
  readonly totalBytes: number;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The settings that `huggingface_hub` would use: HF_HOME, HF_HUB_CACHE (HUGGINGFACE_HUB_CACHE), XDG_CACHE_HOME,
 * HF_ENDPOINT, HF_TOKEN (HUGGING_FACE_HUB_TOKEN), HF_TOKEN_PATH, HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_OFFLINE
 * (TRANSFORMERS_OFFLINE), HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_DISABLE_SYMLINKS.
 */
export function hubSettings(env: Environment, homeDir: string): HubSettings {
  const path = (name: string) => env[name]?.replace(/^~(?=[\\/]|$)/, homeDir) || undefined;
  const isOn = (name: string) => /^(1|on|yes|true)$/i.test(env[name] ?? "");
  const home =
    path("HF_HOME") ?? join(path("XDG_CACHE_HOME") ?? join(homeDir, ".cache"), "huggingface");
  const token = () =>
    env["HF_TOKEN"]?.trim() ||
    env["HUGGING_FACE_HUB_TOKEN"]?.trim() ||
    textIfPresent(path("HF_TOKEN_PATH") ?? join(home, "token")).trim();
  return {
    endpoint: endpointFrom(env["HF_ENDPOINT"]),
    cacheDir: path("HF_HUB_CACHE") ?? path("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub"),
    token: isOn("HF_HUB_DISABLE_IMPLICIT_TOKEN") ? undefined : checkedToken(token()),
    offline: isOn("HF_HUB_OFFLINE") || isOn("TRANSFORMERS_OFFLINE"),
    refresh: false,
    metadataTimeoutMs: millisecondsFrom("HF_HUB_ETAG_TIMEOUT", env),
    downloadTimeoutMs: millisecondsFrom("HF_HUB_DOWNLOAD_TIMEOUT", env),
    useSymlinks: !isOn("HF_HUB_DISABLE_SYMLINKS"),
    retryDelayMs: 1000,
  };
}

function checkedToken(token: string): HubSettings["token"] {
  // A header takes visible ASCII only; the value itself must not appear in the message.
  if (!/^[\x21-\x7e]*$/.test(token))
    throw new UserError("the hub token holds spaces or characters that no token has", {
      hint: "copy it again from the hub's token page into HF_TOKEN",
    });
  return token === "" ? undefined : { reveal: () => token };
}

function endpointFrom(text: string | undefined): string {
  const endpoint = (text?.trim() || "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:\/\/[^\s/]/.test(endpoint) || !URL.canParse(endpoint))
    throw new UserError(`HF_ENDPOINT is "${endpoint}", expected an address such as https://host`);
  return endpoint;
}

function millisecondsFrom(name: string, env: Environment): number {
  const text = env[name]?.trim() || "10";
  const seconds = Number(text);
  if (!(seconds > 0 && seconds < 1e6))
    throw new UserError(`${name} is "${text}", expected a number of seconds`);
  return seconds * 1000;
}

function textIfPresent(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
