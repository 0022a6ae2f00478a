// Stored matrices that are cast part by part give what they give when they are cast whole.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { openWithTemperatures, randomIds, writeRandomModel } from "../../bench/models.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { targets, toOnnx } from "../../src/engines/onnx/onnx.ts";
import { onnxRuntimeEngine } from "../../src/engines/onnxruntime/engine.ts";
import { buildTrainingGraph, openTrainingStep } from "../../src/train/step.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { gpt2, llama } from "../model/tiny-geometries.ts";

const whole = targets.cpu;
/** Three parts of the output embedding, the last one shorter, and two of the MLP's matrices. */
const byParts = { ...targets.cpu, castBytes: 34_000 };
const engineOf = (target: typeof whole) =>
  onnxRuntimeEngine({
    description: "cpu",
    precisions: ["fp32", "fp16"],
    target,
    provider: { name: "cpu" },
    threads: 1,
  });
const engines = [engineOf(whole), engineOf(byParts)];
after(() => Promise.all(engines.map((engine) => engine.dispose())));

const window = { batchSize: 2, context: 48 };

for (const config of [gpt2, llama])
  test(`${config.model_type}: loss and gradients`, async (t) => {
    const folder = await temporaryFolder(t);
    await writeRandomModel(folder, { ...config, vocab_size: 301 }, "BF16");
    const opened = await openWithTemperatures(folder);
    const [expected, actual] = await Promise.all(engines.map((engine) => step(engine, opened)));
    for (const [name, gradient] of expected!.gradients)
      allClose(actual!.gradients.get(name)!, gradient, { atol: 1e-5, rtol: 1e-5 });
    allClose([actual!.nats], [expected!.nats], { rtol: 1e-6 });
    assert.ok(nodesOf(opened, byParts) > nodesOf(opened, whole) + 10, "nothing was cut");
  });

const namesOf = ({ temperatures }: OpenedModel) => [...temperatures!.values.keys()];

async function step(engine: (typeof engines)[number], opened: OpenedModel) {
  const training = await openTrainingStep(engine, opened, window, namesOf(opened), {});
  const ids = randomIds(window.batchSize * window.context, 301);
  const batch = { ids, labels: ids.toReversed(), numTargets: ids.length };
  const { nats, gradients } = await training.run(
    batch,
    Object.fromEntries(opened.temperatures!.values),
  );
  await training.dispose();
  return { nats, gradients };
}

function nodesOf(opened: OpenedModel, target: typeof whole): number {
  const graph = buildTrainingGraph(opened, window, namesOf(opened));
  const model = toOnnx(graph, () => new Uint8Array(), target);
  return Buffer.from(model).toString("latin1").split("Cast").length;
}
