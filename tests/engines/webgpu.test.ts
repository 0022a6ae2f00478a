// WebGPU for real, on a software adapter: the training graph of each architecture runs there whole, and its loss,
// gradients and training steps are the CPU's. Where there is no such adapter these tests skip.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import type { Deviations } from "./device-training.ts";
import { runWithVulkan, skipWithoutVulkan } from "../software-vulkan.ts";

// A session is created only if every node has a WebGPU kernel, since nothing may fall back to the CPU
// (session.disable_cpu_ep_fallback). There is no exception.
test("training graphs run on WebGPU as on the CPU", { skip: skipWithoutVulkan }, async (t) => {
  const { code, stdout, stderr } = await runWithVulkan([
    join(import.meta.dirname, "device-training.ts"),
    "webgpu",
  ]);
  const found = stdout.trim().split("\n");
  for (const line of found) {
    const { name, gradients, losses, halfLosses, drop } = JSON.parse(line) as Deviations;
    await t.test(name, (t) => {
      t.diagnostic(`losses within ${losses}, gradients within ${Math.max(...gradients)}`);
      assert.ok(gradients.length > 0 && gradients.every((d) => d <= 1e-4), gradients.join());
      assert.ok(losses <= 1e-4, `losses differ by ${losses}`);
      t.diagnostic(`in half precision: ${halfLosses ?? "compiled, the adapter cannot run it"}`);
      assert.ok(halfLosses === null || halfLosses <= 1e-2, `half precision: ${halfLosses}`);
      assert.ok(drop > 1e-3, `the loss fell by ${drop} only: nothing was trained`);
    });
  }
  assert.equal(code, 0, stderr);
  assert.equal(found.length, 6);
});
