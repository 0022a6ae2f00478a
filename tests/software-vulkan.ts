// The software Vulkan device (SwiftShader) that Debian's chromium package brings. Its driver is found through the
// environment, which must be set before a process starts: what needs it runs in a process of its own.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";

const driver = "/usr/lib/chromium/vk_swiftshader_icd.json";

/** The `skip` option of a test that needs the device. */
export const skipWithoutVulkan = existsSync(driver)
  ? false
  : `no software Vulkan device: ${driver} comes with Debian's chromium package`;

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs node with tsx and these arguments; WebGPU finds the software device and nothing else. */
export function runWithVulkan(args: readonly string[]): Promise<Finished> {
  // Without NODE_TEST_CONTEXT a test runner in the child reports for itself.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--import", "tsx", ...args], {
      env: { ...env, VK_ICD_FILENAMES: driver },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}
