// Settings of the hub client from the environment variables that huggingface_hub defines; the variables are handed in.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { orElse, UserError } from "../core/errors.ts";
import type { HubRepo } from "./repo-id.ts";

export type HubSettings = Readonly<ReturnType<typeof hubSettings>>;

/** What a request is made for. */
export interface HubContext {
  readonly settings: HubSettings;
  readonly repo: HubRepo;
  /** What one can do without a network; by default take what lies here. */
  readonly offlineWay?: string;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  readonly onNote?: ((note: string) => void) | undefined;
}

export type DownloadProgress = Readonly<{
  file: string;
  receivedBytes: number;
  totalBytes: number;
}>;

type Environment = Readonly<Record<string, string | undefined>>;

/** A function, so that no log, JSON or inspection shows the value. */
type Secret<T> = { readonly reveal: () => T } | undefined;

/** The settings that `huggingface_hub` would use; and HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in small letters too. */
export function hubSettings(env: Environment, homeDir: string) {
  const path = (name: string) => env[name]?.replace(/^~(?=[\\/]|$)/, homeDir) || undefined;
  const milliseconds = (name: string) => {
    const seconds = Number(env[name]?.trim() || "10");
    if (seconds > 0 && seconds < 1e6) return seconds * 1000;
    throw new UserError(`${name} is "${env[name]}", expected a number of seconds`);
  };
  const isOn = (name: string) => /^(1|on|yes|true)$/i.test(env[name] ?? "");
  const home =
    path("HF_HOME") ?? join(path("XDG_CACHE_HOME") ?? join(homeDir, ".cache"), "huggingface");
  const endpoint = (env["HF_ENDPOINT"]?.trim() || "https://huggingface.co").replace(/\/+$/, "");
  if (!isAddress(endpoint))
    throw new UserError(`HF_ENDPOINT is "${endpoint}", expected an address such as https://host`);
  const token = () =>
    env["HF_TOKEN"]?.trim() ||
    env["HUGGING_FACE_HUB_TOKEN"]?.trim() ||
    orElse(() => readFileSync(path("HF_TOKEN_PATH") ?? join(home, "token"), "utf8"), "").trim();
  return {
    /** Without a trailing slash, e.g. `https://huggingface.co`. */
    endpoint,
    /** The folder that holds `models--org--name` and `datasets--org--name`. */
    cacheDir: path("HF_HUB_CACHE") ?? path("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub"),
    token: isOn("HF_HUB_DISABLE_IMPLICIT_TOKEN") ? undefined : checkedToken(token()),
    proxies: proxiesFrom(env),
    /** No request is made; only what is cached is used. */
    offline: isOn("HF_HUB_OFFLINE") || isOn("TRANSFORMERS_OFFLINE"),
    /** The hub is asked what a branch or tag means now, even where it is cached; `offline` overrules it. */
    refresh: false,
    /** How long the hub may be silent while it lists. */
    metadataTimeoutMs: milliseconds("HF_HUB_ETAG_TIMEOUT"),
    /** How long a download may be silent. */
    downloadTimeoutMs: milliseconds("HF_HUB_DOWNLOAD_TIMEOUT"),
    /** Snapshots hold links to blobs; without, the files themselves. */
    useSymlinks: !isOn("HF_HUB_DISABLE_SYMLINKS"),
    /** How large files are sent: in pieces that the hub may have already, or whole. */
    useXet: !isOn("HF_HUB_DISABLE_XET"),
    /** First wait before a request is repeated; doubles each time. */
    retryDelayMs: 1000,
  };
}

const isAddress = (text: string) => /^https?:\/\/[^\s/]/.test(text) && URL.canParse(text);

function checkedToken(token: string): Secret<string> {
  // A header takes visible ASCII only; the value itself must not appear in the message.
  if (!/^[\x21-\x7e]*$/.test(token))
    throw new UserError("the hub token holds spaces or characters that no token has", {
      hint: "copy it again from the hub's token page into HF_TOKEN",
    });
  return token === "" ? undefined : { reveal: () => token };
}

/** A secret, as a proxy's address may hold a password; wrong ones matter only where a request is made. */
function proxiesFrom(env: Environment): Secret<Record<`${"http" | "https" | "no"}Proxy`, string>> {
  const valueOf = (name: string) => (env[name] || env[name.toUpperCase()] || "").trim();
  const addressIn = (name: string) => {
    const address = valueOf(name).replace(/^(?!$|\w+:\/\/)/, "http://");
    if (address === "" || isAddress(address)) return address;
    throw new UserError(`${name} holds no address of a proxy, such as http://host:3128`);
  };
  const reveal = () => ({
    httpProxy: addressIn("http_proxy"),
    httpsProxy: addressIn("https_proxy"),
    noProxy: valueOf("no_proxy"),
  });
  return valueOf("http_proxy") || valueOf("https_proxy") ? { reveal } : undefined;
}
