// What a container may take: control groups of both versions as Linux shows them, in a folder of files.

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { freemem } from "node:os";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { freeMemory } from "../../src/core/memory.ts";
import { temporaryFolder } from "../helpers.ts";

async function machine(t: TestContext, files: Readonly<Record<string, string | number>>) {
  const root = await temporaryFolder(t);
  for (const [name, text] of Object.entries(files)) {
    const path = join(root, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `${text}\n`);
  }
  return root;
}

const stat = "anon 500\nfile 900\nactive_file 300\ninactive_file 400\nswapcached 7000";
const statV1 = `${stat}\ntotal_active_file 300\ntotal_inactive_file 400`;

test("version 2: the limit less what is used, but for pages of files", async (t) => {
  const root = await machine(t, {
    "proc/self/cgroup": "0::/",
    "sys/fs/cgroup/memory.max": 4000,
    "sys/fs/cgroup/memory.current": 1500,
    "sys/fs/cgroup/memory.stat": stat,
    "sys/fs/cgroup/memory.swap.max": 100_000,
  });
  assert.equal(freeMemory(root, 1e9), 4000 - (1500 - 700));
  assert.equal(freeMemory(root, 1000), 1000);
});

test("version 2: a group above may have less to give", async (t) => {
  const slice = "sys/fs/cgroup/user.slice";
  const root = await machine(t, {
    "proc/self/cgroup": "0::/user.slice/run.scope",
    [`${slice}/run.scope/memory.max`]: "max",
    [`${slice}/run.scope/memory.current`]: 10,
    [`${slice}/memory.max`]: 3000,
    [`${slice}/memory.current`]: 2900,
    [`${slice}/memory.stat`]: "anon 2900",
  });
  assert.equal(freeMemory(root, 1e9), 100);
});

test("version 1, in a container that does not see its own path", async (t) => {
  const root = await machine(t, {
    "proc/self/cgroup": "5:cpu:/\n4:memory:/docker/8b1d\n0::/",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": 4000,
    "sys/fs/cgroup/memory/memory.usage_in_bytes": 1500,
    "sys/fs/cgroup/memory/memory.stat": statV1,
  });
  assert.equal(freeMemory(root, 1e9), 3200);
});

test("without limits it is what the machine has", async (t) => {
  const root = await machine(t, {
    "proc/self/cgroup": "4:memory:/a\n0::/",
    "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712",
    "sys/fs/cgroup/memory/a/memory.usage_in_bytes": 1500,
  });
  assert.equal(freeMemory(root, 1e9), 1e9);
  assert.equal(freeMemory(await machine(t, {}), 1e9), 1e9);
  assert.ok(freeMemory() > 0 && freeMemory() < 2 * freemem());
});
