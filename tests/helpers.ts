// Helpers of many tests: temporary folders, the real models outside the repository, comparison of numbers.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TestContext } from "node:test";

/** A new folder that is removed after the test. */
export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "ssa-test-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

let processFolder: string | undefined;

/** A new folder for what tests of a file share; it goes when their process ends. */
export function sharedFolder(): string {
  if (processFolder === undefined) {
    const folder = (processFolder = mkdtempSync(join(tmpdir(), "ssa-test-")));
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  }
  return mkdtempSync(join(processFolder, "folder-"));
}

/** A path in the folder of real models and text, which lies beside a checkout but not beside every one. */
export function sharedData(...names: readonly string[]): string {
  return join(fileURLToPath(new URL("../../shared/data", import.meta.url)), ...names);
}

/** A model folder among the cases that once failed, which lie beside the real models. */
export const sharedCase = (name: string) => sharedData("..", "cases", name);

/** The `skip` option of a test that needs this path of sharedData. */
export function skipWithout(path: string): string | false {
  return existsSync(path) ? false : `${path} is not there`;
}

/** Fails unless every |actual - expected| is at most `atol + rtol * |expected|`; NaN is close to nothing. */
export function allClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { atol = 0, rtol = 0 }: { readonly atol?: number; readonly rtol?: number } = {},
): void {
  assert.equal(actual.length, expected.length, "number of values");
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    const limit = atol + rtol * Math.abs(e);
    const isClose = a === e || Math.abs(a - e) <= limit;
    assert.ok(isClose, `value ${i} is ${a}, expected ${e} within ${limit}`);
  }
}
