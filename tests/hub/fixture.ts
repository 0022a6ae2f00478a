// A hub with a small model and an empty cache, for one test.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { UserError } from "../../src/core/errors.ts";
import { hubSettings, type HubSettings } from "../../src/hub/environment.ts";
import { resolveModel as folderOf } from "../../src/hub/model.ts";
import { startHub, type Hub, type HubOptions } from "../hub-server.ts";

/** Bytes that no two places share, so that a misplaced piece shows. */
export function content(sizeBytes: number): Uint8Array {
  return Uint8Array.from({ length: sizeBytes }, (_, i) => (i * 31 + (i >> 8) * 17) & 255);
}

/** Enough for several chunks on the wire. */
export const WEIGHTS = content(300_000);

/** What a model repository holds, with much that is of no use to us. */
export const MODEL_FILES = {
  "config.json": '{"model_type":"gpt2"}',
  "generation_config.json": "{}",
  "tokenizer.json": '{"version":"1.0"}',
  "tokenizer_config.json": "{}",
  "model.safetensors": WEIGHTS,
  "pytorch_model.bin": content(1000),
  "onnx/model.onnx": "onnx",
  "README.md": "# a model",
} as const;

export interface Fixture {
  readonly hub: Hub;
  readonly settings: HubSettings;
  readonly cacheDir: string;
  /** The settings for other variables of the environment. */
  readonly with: (env: Record<string, string>) => HubSettings;
  /** Paths of requests since the last call. */
  readonly requested: () => string[];
}

export async function withHub(
  options: HubOptions,
  test: (fixture: Fixture) => Promise<void>,
): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), "ssa-hub-"));
  const hub = await startHub({ models: { "some-org/tiny": MODEL_FILES }, ...options });
  const settingsOf = (env: Record<string, string>) => ({
    ...hubSettings({ HF_ENDPOINT: hub.url, HF_HOME: home, ...env }, home),
    retryDelayMs: 1,
  });
  const settings = settingsOf({});
  let seen = 0;
  const requested = () => {
    const paths = hub.requests.slice(seen).map(({ path }) => path);
    seen = hub.requests.length;
    return paths;
  };
  try {
    await test({ hub, settings, cacheDir: settings.cacheDir, with: settingsOf, requested });
  } finally {
    await hub.close();
    await rm(home, { recursive: true, force: true });
  }
}

/** The folder of a model and its name, which in a cache is the commit. */
export async function resolveModel(...args: Parameters<typeof folderOf>) {
  const folder = await folderOf(...args);
  return { folder, commit: basename(folder) };
}

/** Expects a UserError whose message and hint together match. */
export function saying(pattern: RegExp) {
  return (error: UserError) => {
    assert.equal(error.name, "UserError");
    assert.match(`${error.message} | ${error.hint}`, pattern);
    return true;
  };
}
