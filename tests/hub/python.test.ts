// The cache is shared with Python: what huggingface_hub wrote we read without a request, and the reverse.

import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import type { HubSettings } from "../../src/hub/environment.ts";
import { resolveDataset } from "../../src/hub/dataset.ts";
import { withHub, resolveModel } from "./fixture.ts";

const hasPython = spawnSync("python3", ["-c", "import huggingface_hub"]).status === 0;
const skip = !hasPython && "python3 with huggingface_hub is not installed";
const datasets = {
  "Salesforce/wikitext": { "wikitext-2-raw-v1/test-00000-of-00001.parquet": "rows" },
};

/** The paths that Python gives for the model's files and the data set's, a line each. */
async function pythonPaths(settings: HubSettings, isOffline: boolean): Promise<string[]> {
  const script = `
from huggingface_hub import hf_hub_download
for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]:
    print(hf_hub_download("some-org/tiny", name))
name = "wikitext-2-raw-v1/test-00000-of-00001.parquet"
print(hf_hub_download("Salesforce/wikitext", name, repo_type="dataset"))`;
  const env = {
    ...process.env,
    HF_ENDPOINT: settings.endpoint,
    HF_HUB_CACHE: settings.cacheDir,
    HF_HUB_OFFLINE: isOffline ? "1" : "0",
    HF_HUB_DISABLE_XET: "1",
  };
  const { stdout } = await promisify(execFile)("python3", ["-c", script], { env });
  return stdout.trim().split("\n");
}

async function ourPaths(settings: HubSettings): Promise<string[]> {
  const { folder } = await resolveModel("some-org/tiny", settings);
  const { files } = await resolveDataset("wikitext@test", settings);
  const names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
  return [...names.map((name) => `${folder}/${name}`), ...Object.values(files).flat()];
}

test("a cache that Python filled is read without a request", { skip }, () =>
  withHub({ datasets }, async ({ settings, requested }) => {
    const theirs = await pythonPaths(settings, false);
    requested();
    assert.deepEqual(await ourPaths(settings), theirs);
    assert.deepEqual(requested(), []);
  }),
);

test("a cache that we filled is read by Python offline", { skip }, () =>
  withHub({ datasets }, async ({ settings }) => {
    const ours = await ourPaths(settings);
    assert.deepEqual(await pythonPaths(settings, true), ours);
  }),
);
