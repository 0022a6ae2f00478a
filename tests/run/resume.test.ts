// A run that was interrupted, killed or damaged, and then continued, equals the one that was not: bit for bit.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { newestRun } from "../../src/files/run-folder.ts";
import { lockRun } from "../../src/files/lock.ts";
import { readLines } from "../../src/files/json.ts";
import { fineTune } from "../../src/run/fine-tune.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import type { RunEvent } from "../../src/run/work.ts";
import type { LoopState } from "../../src/train/loop.ts";
import { temporaryFolder } from "../helpers.ts";
import { fixture, outcomeOf, smallRecipe, smallRun, writeTokens } from "./small-run.ts";

const engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

const recipe = { tune: "temperatures,norms" };
const notes = (events: readonly RunEvent[]) =>
  events.flatMap((event) => (event.kind === "note" ? [event.text] : []));

test("interrupted between steps, while scoring and at the end, and continued, it equals the uninterrupted run", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const [whole, parts] = [join(folder, "whole"), join(folder, "parts")];
  await smallRun({ engine, folder: whole, data, recipe });
  const stops: readonly [(event: RunEvent) => boolean, number | null][] = [
    [(event) => event.kind === "scored" && event.phase === "before", null],
    [(event) => event.kind === "step" && event.step === 1, 1],
    [(event) => event.kind === "step" && event.step === 3, 3],
    [(event) => event.kind === "scored" && event.phase === "evaluation", 3],
    [(event) => event.kind === "saved" && event.step === 4, 4],
    [(event) => event.kind === "evaluated" && event.step === 6, 6],
    [(event) => event.kind === "step" && event.step === 8, 8],
    [(event) => event.kind === "scored" && event.phase === "after", null],
  ];
  for (const [i, [stopAt, step]] of stops.entries()) {
    const result = await smallRun({
      engine,
      folder: parts,
      data,
      recipe,
      stopAt,
      isResumed: i > 0,
    });
    assert.ok(result.outcome === "interrupted", `stop ${i}`);
    assert.equal(result.step, step, `stop ${i}`);
    if (i === 1) assert.match(notes(result.events)[0]!, /no checkpoint .* yet: starting at step 0/);
    if (i === 2) assert.match(notes(result.events)[0]!, /resuming at step 1 /);
  }
  await smallRun({ engine, folder: parts, data, recipe, isResumed: true });
  assert.deepEqual(await outcomeOf(parts), await outcomeOf(whole));
});

test("a run of packed documents is continued in the order that it had", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const [whole, parts] = [join(folder, "whole"), join(folder, "parts")];
  const packed = { ...recipe, packing: "documents", context: 12, steps: 60, evalEvery: 30 };
  const run = { engine, data, recipe: packed };
  await smallRun({ ...run, folder: whole });
  // In the second epoch: 1,200 targets are 100 rows, two of them a step.
  const stopAt = (event: RunEvent) => event.kind === "step" && event.step === 53;
  await smallRun({ ...run, folder: parts, stopAt });
  await smallRun({ ...run, folder: parts, isResumed: true });
  assert.deepEqual(await outcomeOf(parts), await outcomeOf(whole));
});

test("half precision goes on at the loss scale that it had", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const half = { ...recipe, precision: "fp16" };
  // At the scale that is left by sixteen overflows of two micro batches each, gradients round otherwise than at first.
  const overflowing = (): Engine => ({
    ...engine,
    compile: async (outputs, weights) => {
      const program = await engine.compile(outputs, weights);
      let runs = 0;
      const run: typeof program.run = async (feeds) => {
        const results = await program.run(feeds);
        if (feeds["lossScale"] && runs++ < 32) Object.values(results).at(-1)![0] = Infinity;
        return results;
      };
      return { ...program, run };
    },
  });
  const [whole, parts] = [join(folder, "whole"), join(folder, "parts")];
  await smallRun({ engine: overflowing(), folder: whole, data, recipe: half });
  const stopAt = (event: RunEvent) => event.kind === "step" && event.step === 3;
  await smallRun({ engine: overflowing(), folder: parts, data, recipe: half, stopAt });
  await smallRun({ engine, folder: parts, data, recipe: half, isResumed: true });
  const expected = await outcomeOf(whole);
  assert.deepEqual(await outcomeOf(parts), expected);
  const { lossScale } = expected.state.loop as LoopState;
  assert.deepEqual(lossScale, { value: 2 ** -6, finiteSteps: 8 });
});

test("the same seed gives the same numbers twice; another seed gives others", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const outcomes = [];
  for (const [name, seed] of [
    ["a", 0],
    ["b", 0],
    ["c", 1],
  ] as const) {
    await smallRun({ engine, folder: join(folder, name), data, recipe: { ...recipe, seed } });
    outcomes.push(await outcomeOf(join(folder, name)));
  }
  assert.deepEqual(outcomes[0], outcomes[1]);
  assert.notDeepEqual(outcomes[0]!.tensors, outcomes[2]!.tensors);
});

test("a damaged checkpoint, report or base score costs time, not the result", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const run = join(folder, "run");
  await smallRun({ engine, folder: run, data, recipe });
  const expected = await outcomeOf(run);

  await truncate(join(run, "step-000008", "optimizer.safetensors"), 500);
  await writeFile(join(run, "report.json"), '{"before":');
  const again = await smallRun({ engine, folder: run, data, recipe, isResumed: true });
  const [damaged, resumed] = notes(again.events);
  assert.match(
    damaged!,
    /step-000008 is damaged \(optimizer.safetensors is damaged\); the checkpoint before it is used/,
  );
  assert.match(resumed!, /resuming at step 6 /);
  assert.deepEqual(await outcomeOf(run), expected);

  await writeFile(join(run, "before.json"), "[1, 2");
  await rm(join(run, "final"), { recursive: true });
  await smallRun({ engine, folder: run, data, recipe, isResumed: true });
  assert.deepEqual(await outcomeOf(run), expected);
});

test("where every checkpoint is damaged it does not start from nothing unasked", async (t) => {
  const folder = await temporaryFolder(t);
  const run = join(folder, "run");
  const stopAt = (event: RunEvent) => event.kind === "step" && event.step === 3;
  await smallRun({ engine, folder: run, stopAt });
  for (const name of (await readdir(run)).filter((file) => file.startsWith("step-")))
    await truncate(join(run, name, "ssa_adapter.safetensors"), 10);
  await assert.rejects(smallRun({ engine, folder: run, isResumed: true }), (error) => {
    assert.ok(error instanceof UserError && error.exitCode === 1);
    assert.match(error.message, /every checkpoint in .* is damaged/);
    return true;
  });
});

test("a finished run is not trained again: its report comes back", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const first = await smallRun({ engine, folder });
  const again = await smallRun({ engine, folder, isResumed: true });
  assert.ok(first.outcome === "finished" && again.outcome === "finished");
  assert.deepEqual(again.events, []);
  // As JSON has it: -0 and 0 are one number there.
  assert.deepEqual(again.report, JSON.parse(JSON.stringify(first.report)));
});

test("data that changed since the run began is refused", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const run = join(folder, "run");
  const stopAt = (event: RunEvent) => event.kind === "step" && event.step === 3;
  await smallRun({ engine, folder: run, data, stopAt });
  for (const [file, key] of [
    ["train.bin", "data"],
    ["val.bin", "evalData"],
  ] as const) {
    const path = join(data, file);
    const bytes = await readFile(path);
    await writeFile(path, bytes.subarray(0, -2));
    await assert.rejects(
      smallRun({ engine, folder: run, data, isResumed: true }),
      new RegExp(`the content of ${key} has changed since the run began`),
    );
    await writeFile(path, bytes);
  }
  await smallRun({ engine, folder: run, data, isResumed: true });
});

test("a run on several sources resumes to the same bits, says their shares, and each must be as it was", async (t) => {
  const folder = await temporaryFolder(t);
  const [one, two] = [join(folder, "one"), join(folder, "two")];
  await writeTokens(one);
  await writeTokens(two, 23);
  const mixed = {
    ...recipe,
    data: [
      { path: one, weight: 1 },
      { path: two, weight: 3 },
    ],
  };
  const [whole, parts] = [join(folder, "whole"), join(folder, "parts")];
  await smallRun({ engine, folder: whole, recipe: mixed });
  const stopAt = (event: RunEvent) => event.kind === "step" && event.step === 3;
  await smallRun({ engine, folder: parts, recipe: mixed, stopAt });
  const path = join(two, "train.bin");
  const bytes = await readFile(path);
  await writeFile(path, bytes.subarray(0, -2));
  await assert.rejects(smallRun({ engine, folder: parts, recipe: mixed, isResumed: true }), {
    name: "UserError",
    message: /the content of data 2, .*two, has changed since the run began/,
  });
  await writeFile(path, bytes);
  await smallRun({ engine, folder: parts, recipe: mixed, isResumed: true });
  assert.deepEqual(await outcomeOf(parts), await outcomeOf(whole));
  const { sources, after } = JSON.parse(
    await readFile(join(whole, "report.json"), "utf8"),
  ) as RunReport;
  assert.deepEqual(
    sources?.map(({ name, tokens }) => [name, tokens]),
    [
      [one, 1201],
      [two, 1201],
    ],
  );
  assert.ok(Math.abs(sources[1]!.share - 0.75) < 0.02);
  // The validation parts of both are scored, all but the first token of each window.
  assert.equal(after.numTokens, 2 * 203 - after.windows);
});

test("a finished run is continued where more steps are asked for", async (t) => {
  const folder = join(await temporaryFolder(t), "run");
  const first = await smallRun({ engine, folder });
  const more = { engine, folder, isResumed: true, recipe: { steps: 12 } };
  const stopAt = (event: RunEvent) => event.kind === "step" && event.step === 10;
  const stopped = await smallRun({ ...more, stopAt });
  assert.match(notes(stopped.events)[0]!, /resuming at step 8 /);
  assert.deepEqual(
    [stopped.outcome, stopped.outcome === "interrupted" && stopped.step],
    ["interrupted", 10],
  );
  // Until it ends, final/ and report are those of the shorter run, which is no reason to tell them again.
  const again = await smallRun(more);
  assert.ok(first.outcome === "finished" && again.outcome === "finished");
  assert.deepEqual([again.report.steps, again.report.recipe.steps], [12, 12]);
  assert.deepEqual(again.report.before, JSON.parse(JSON.stringify(first.report.before)));
  assert.ok(again.report.after.lossNats < first.report.after.lossNats);
  const steps = (await readLines(join(folder, "metrics.jsonl"))).filter(
    ({ kind }) => kind === "step",
  );
  assert.deepEqual(
    steps.map(({ step }) => step),
    Array.from({ length: 12 }, (_, i) => i + 1),
  );
});

test("the library resumes too, as the run was begun, and with more steps", async (t) => {
  const folder = await temporaryFolder(t);
  const data = await writeTokens(join(folder, "data"));
  const out = join(folder, "run");
  const options = { ...smallRecipe, base: fixture(), data, out, threads: 1, steps: 3 };
  const stop = new AbortController();
  const stopped = fineTune({ ...options, signal: stop.signal, onStep: () => stop.abort() });
  await assert.rejects(stopped, { name: "AbortError" });
  const seen: number[] = [];
  const onStep = ({ step }: { readonly step: number }) => void seen.push(step);
  assert.equal((await fineTune({ ...options, resume: true, onStep })).steps, 3);
  assert.equal((await fineTune({ ...options, steps: 4, resume: true, onStep })).steps, 4);
  assert.deepEqual(seen, [2, 3, 4]);
  await assert.rejects(fineTune({ ...options, steps: 2, resume: true }), /steps is 4, not 2/);
});

test("one process at a time; a folder that is used is not overwritten", async (t) => {
  const folder = join(await temporaryFolder(t), "checkpoints", "run");
  let second: Promise<unknown> | undefined;
  await smallRun({
    engine,
    folder,
    stopAt: (event) => {
      if (event.kind === "step" && event.step === 2)
        second = assert.rejects(
          smallRun({ engine, folder, isResumed: true }),
          new RegExp(`run is in use by process ${process.pid}`),
        );
      return false;
    },
  });
  await second;
  assert.ok(second, "the second one tried");
  await assert.rejects(smallRun({ engine, folder }), /exists and is not empty/);
  // Nothing is started that would have to be ended, and what is refused leaves no folder.
  const onEngine = () => assert.fail("an engine was started");
  const lock = await lockRun(folder);
  await assert.rejects(smallRun({ engine, folder, isResumed: true, onEngine }), /is in use/);
  await lock.release();
  const unused = join(folder, "..", "unused");
  await assert.rejects(smallRun({ engine, folder: unused, onEngine }), /an engine was started/);
  assert.ok(!existsSync(unused));
  // A model that lies beside it with the recipe it was made with is not the newest run.
  const model = join(folder, "..", "model");
  await mkdir(model);
  for (const name of ["recipe.yaml", "config.json"]) await writeFile(join(model, name), "{}");
  assert.equal(await newestRun(join(folder, "..")), folder);
});
