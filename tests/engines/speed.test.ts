// What a graph costs, counted by hand; a machine's speed is positive and of the right kind.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { openEngine } from "../../src/engines/index.ts";
import { add, gather, input, matMul, parameter, reshape } from "../../src/graph/build.ts";
import { costOf } from "../../src/engines/counts.ts";
import { measureSpeed } from "../../src/engines/onnxruntime/estimate.ts";

const engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

test("products count as operations, passes as what they read and write", () => {
  const x = input("x", [3, 5], "F32");
  const w = parameter("w", [7, 5]);
  const y = matMul(x, w, { transposeB: true });
  assert.deepEqual(costOf({ y }), { operations: 2 * 3 * 5 * 7, bytes: 0 });
  assert.deepEqual(costOf({ y: matMul(x, input("z", [3, 7], "F32"), { transposeA: true }) }), {
    operations: 2 * 3 * 5 * 7,
    bytes: 0,
  });
  assert.deepEqual(costOf({ z: reshape(add(y, y), [21]) }), {
    operations: 2 * 3 * 5 * 7,
    bytes: 4 * 3 * 21,
  });
  // Two of seven rows, read and written.
  const rows = gather(w, input("ids", [2], "I64"));
  assert.deepEqual(costOf({ rows }), { operations: 0, bytes: 4 * 2 * 10 });
});

test("a run's time is estimated from its own products, whether weights are bound or train", async () => {
  const x = input("x", [64, 32], "F32");
  for (const w of [parameter("w", [32, 64]), input("w", [32, 64], "F32")])
    assert.ok((await engine.estimate({ y: matMul(x, w) }).seconds!()) > 0);
});

test("a machine multiplies faster than it passes over memory", async () => {
  const { operations, bytes } = await measureSpeed(engine, {
    rows: 128,
    hidden: 128,
    intermediate: 256,
  });
  assert.ok(bytes > 0 && Number.isFinite(operations));
  assert.ok(operations > bytes, `${operations} operations and ${bytes} bytes per second`);
});
