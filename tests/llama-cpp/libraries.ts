// llama.cpp's shared libraries, as npm's @node-llama-cpp/linux-x64 brings them, at work through Python.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const installed = at("../../node_modules/@node-llama-cpp/linux-x64/bins/linux-x64");

/** Their folder: of this variable, or where npm puts them. */
const folder = process.env["SSA_TEST_LLAMA_CPP"] ?? installed;

/** The `skip` option of a test that needs them. */
export const skipWithoutLlamaCpp = existsSync(folder)
  ? false
  : `${folder} is not there: npm install --no-save --ignore-scripts @node-llama-cpp/linux-x64@3.22.1`;

export type Job =
  | {
      readonly logits: string;
      readonly ids: readonly (readonly number[])[];
      readonly to: string;
      /** YaRN's beta_fast and beta_slow, which llama.cpp does not take from the file. */
      readonly yarn?: readonly number[];
    }
  | { readonly tokens: string; readonly text: string; readonly to: string }
  | { readonly quantize: string; readonly type: number; readonly to: string }
  | { readonly values: string; readonly type: number; readonly count: number; readonly to: string };

/** Does the jobs of run.py one after the other. */
export async function llamaCpp(jobs: readonly Job[]): Promise<void> {
  const child = spawn("python3", [at("run.py"), folder], { stdio: ["pipe", "pipe", "pipe"] });
  child.stdin.end(jobs.map((job) => `${JSON.stringify(job)}\n`).join(""));
  const [errors, answers] = [text(child.stderr), text(child.stdout)];
  const code = await new Promise((done) => child.on("close", done));
  const done = (await answers).split("\n").length - 1;
  if (code !== 0) throw new Error(`${JSON.stringify(jobs[done])}: ${await errors}`);
}
