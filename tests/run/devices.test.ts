// Runs on several devices, on one whose memory does not hold the micro batch, on one that goes away, and in the precision
// that its first sequences allow.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { failureOf } from "../../src/engines/failure.ts";
import { readLines } from "../../src/files/json.ts";
import { leaves } from "../../src/graph/tensor.ts";
import type { RunEvent } from "../../src/run/work.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { outcomeOf, readJson, smallRun, writeTokens } from "./small-run.ts";

const engine = await openEngine("cpu", { threads: 1 });
const two = await openEngine("cpu,cpu", { threads: 2 });
after(async () => {
  await engine.dispose();
  await two.dispose();
});

const notes = (events: readonly RunEvent[]) =>
  events.flatMap((event) => (event.kind === "note" ? [event.text] : []));

async function folders(t: TestContext) {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  return { data, one: join(folder, "one"), other: join(folder, "other") };
}

test("two devices train to the same bits as one, also where it goes on with the other number of them", async (t) => {
  const { data, one, other } = await folders(t);
  const recipe = { tune: "temperatures,norms", gradientAccumulationSteps: 5 };
  assert.deepEqual([engine.lanes, two.lanes], [1, 2]);
  await smallRun({ engine, folder: one, data, recipe });
  const stopAt = (event: RunEvent) => event.kind === "step" && event.step === 5;
  await smallRun({ engine: two, folder: other, data, recipe, stopAt });
  await smallRun({ engine, folder: other, data, recipe, isResumed: true });
  assert.deepEqual(await outcomeOf(other), await outcomeOf(one));
  const third = `${other}-2`;
  await smallRun({ engine: two, folder: third, data, recipe, takesTurns: true });
  assert.deepEqual(await outcomeOf(third), await outcomeOf(one));
});

/**
 * The processor, as if it were a card with much memory that cannot run graphs of more than so many sequences, after so
 * many runs of them.
 */
function cardFor(most: number, runs = 0): Engine {
  let left = runs;
  return {
    ...engine,
    room: { host: 0, device: 1 },
    deviceFree: 1e12,
    compile: async (outputs, weights) => {
      const program = await engine.compile(outputs, weights);
      const [sequences] = leaves(outputs, "Input").get("ids")!.shape as readonly number[];
      const tooLarge = failureOf("CUDA failure 2: out of memory ; GPU=0");
      const run: typeof program.run = (feeds) =>
        left-- > 0 ? program.run(feeds) : Promise.reject(tooLarge);
      return sequences! > most ? { ...program, run } : program;
    },
  };
}

test("a micro batch that auto chose is halved where memory is short, and the run ends as it would have", async (t) => {
  const { data, one, other } = await folders(t);
  const whole = { gradientAccumulationSteps: 6, batchSize: 1 };
  await smallRun({ engine, folder: one, data, recipe: whole });
  const recipe = { ...whole, batchSize: "auto" };
  const run = await smallRun({ engine: cardFor(2), folder: other, data, recipe });
  assert.ok(run.outcome === "finished");
  const chosen = { batchSize: 1, gradientAccumulationSteps: 6, precision: "fp32" };
  // 6 sequences at once, then 3, then 1: half of 3, as 6 has it.
  assert.deepEqual(run.report.chosen, chosen);
  assert.deepEqual(
    notes(run.events).flatMap((note) => /micro batches of (\d)/.exec(note)?.[1] ?? []),
    ["6", "3"],
  );
  const memory = (await readLines(join(other, "metrics.jsonl"))).filter(
    ({ kind }) => kind === "out of memory",
  );
  assert.deepEqual(
    memory.map(({ batchSize }) => batchSize),
    [6, 3],
  );
  const [expected, found] = [await outcomeOf(one), await outcomeOf(other)];
  assert.deepEqual(found.tensors, expected.tensors);
  // Eight runs are those of the first scoring and some steps.
  const later = { engine: cardFor(3, 8), folder: `${other}-3`, data, recipe };
  const three = await smallRun(later);
  assert.ok(three.outcome === "finished" && three.report.chosen?.batchSize === 3);
  assert.match(notes(three.events)[1]!, /^resuming at step [1-7] /);
  const close = await outcomeOf(`${other}-3`);
  for (const [name, values] of Object.entries(expected.tensors))
    if (!name.startsWith("optimizer"))
      allClose(close.tensors[name]!, values, { rtol: 1e-4, atol: 1e-6 });
});

test("memory that is short for a micro batch that was asked for is told with the one to try, and the run goes on with it", async (t) => {
  const { data, one } = await folders(t);
  const recipe = { gradientAccumulationSteps: 2, batchSize: 4 };
  const run = { folder: one, data, recipe };
  await assert.rejects(smallRun({ engine: cardFor(2), ...run }), (error) => {
    assert.ok(error instanceof UserError && error.exitCode === 1);
    assert.match(error.message, /too little memory for micro batches of 4: .*out of memory/);
    assert.match(error.hint!, /--batch-size 2 --gradient-accumulation-steps 4$/);
    return true;
  });
  assert.ok(!existsSync(join(one, "chosen.json")));
  await assert.rejects(
    smallRun({ engine: cardFor(0), ...run, recipe: { batchSize: 1 }, isResumed: true }),
    (error) => error instanceof UserError && /--recompute, a smaller --context/.test(error.hint!),
  );
});

test("what was trained is saved where the device goes away, and the run continues to the same result", async (t) => {
  const { data, one, other } = await folders(t);
  await smallRun({ engine, folder: one, data });
  const lost = await openEngine("cpu,cpu", { threads: 2 });
  let isLost = false;
  const stopAt = (event: RunEvent) => {
    // The threads that own the sessions end, in the middle of the next step.
    if (event.kind === "step" && event.step === 5) {
      isLost = true;
      setImmediate(() => void lost.dispose());
    }
    return false;
  };
  await assert.rejects(smallRun({ engine: lost, folder: other, data, stopAt }), (error) => {
    assert.ok(error instanceof UserError && error.exitCode === 1 && isLost);
    assert.match(error.message, /failed: .*thread ended with code 1; all up to step \d is saved$/);
    assert.match(error.hint!, /once it works again, --resume --out .*other goes on/);
    return true;
  });
  const resumed = await smallRun({ engine, folder: other, data, isResumed: true });
  assert.match(notes(resumed.events)[0]!, /resuming at step [56] /);
  assert.deepEqual(await outcomeOf(other), await outcomeOf(one));
});

/** The processor, as if it were a card; in half precision its losses are so many times what they are. */
const halfCard = (factor: number): Engine => ({
  ...cardFor(Infinity),
  compile: async (outputs, weights) => {
    const program = await engine.compile(outputs, weights);
    const isHalf = leaves(outputs, "Input").has("lossScale");
    return {
      ...program,
      run: async (feeds) => {
        const results = await program.run(feeds);
        const nats = results["nats"]!.map((nat) => factor * nat);
        return isHalf ? { ...results, nats } : results;
      },
    };
  },
});

test("precision auto takes half precision where loss and gradients agree, and a resumed run keeps it", async (t) => {
  const { data, one, other } = await folders(t);
  const recipe = { precision: "auto" };
  await smallRun({ engine, folder: one, data, recipe: { precision: "fp16" } });
  const stopAt = (event: RunEvent) => event.kind === "step" && event.step === 3;
  const begun = await smallRun({ engine: halfCard(1), folder: other, data, recipe, stopAt });
  assert.match(
    notes(begun.events)[0]!,
    /^precision: fp16; fp16 differs from fp32 by .* % in the loss and .* 1 % in the loss and 15 % in the gradients are allowed$/,
  );
  // Another choice now would be another run.
  const run = { engine: halfCard(2), folder: other, data, recipe, isResumed: true };
  const resumed = await smallRun(run);
  assert.ok(resumed.outcome === "finished" && resumed.report.chosen?.precision === "fp16");
  assert.ok(!notes(resumed.events).some((note) => note.startsWith("precision")));
  assert.deepEqual((await outcomeOf(other)).state, (await outcomeOf(one)).state);
  assert.equal((await readJson(join(other, "chosen.json")))["precision"], "fp16");
});

test("precision auto stays at fp32 where they do not agree, and where nothing would be faster", async (t) => {
  const { data, one, other } = await folders(t);
  const recipe = { precision: "auto", steps: 1 };
  const off = await smallRun({ engine: halfCard(1.02), folder: one, data, recipe });
  assert.match(
    notes(off.events)[0]!,
    /^precision: fp32; fp16 differs from fp32 by 2 % in the loss/,
  );
  assert.ok(off.outcome === "finished" && off.report.chosen?.precision === "fp32");
  const cpu = await smallRun({ engine, folder: other, data, recipe });
  assert.match(notes(cpu.events)[0]!, /^precision: fp32; cpu .* has nothing faster$/);
});
