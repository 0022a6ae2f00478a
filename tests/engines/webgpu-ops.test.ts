// Every op of the graphs on WebGPU, on a software adapter: a file of its own beside webgpu.test.ts, since each compiles for
// minutes there and a file has five.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { runWithVulkan, skipWithoutVulkan } from "../software-vulkan.ts";

test("every op agrees on WebGPU with the CPU", { skip: skipWithoutVulkan }, async (t) => {
  const suite = join(import.meta.dirname, "agreement.test.ts");
  const { code, stdout, stderr } = await runWithVulkan(["--test-name-pattern=^webgpu$", suite]);
  for (const [, found] of stdout.matchAll(/^ +# (\w+: \d.*)$/gm)) t.diagnostic(found!);
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /^ok \d+ - webgpu$/m);
});
