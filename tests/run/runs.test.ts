// The list of runs against what their folders hold, and what is deleted, which is never a run at work nor anything else.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { openEngine } from "../../src/engines/index.ts";
import type { RunReport } from "../../src/evaluate/results.ts";
import { lockRun } from "../../src/files/lock.ts";
import { deleteRun, findRuns, listRuns } from "../../src/run/runs.ts";
import { temporaryFolder } from "../helpers.ts";
import { readJson, smallRun, writeTokens } from "./small-run.ts";

const engine = await openEngine("cpu", { threads: 1 });
after(() => engine.dispose());

test("runs are listed with what came of them; one at work is not deleted, nor what is no run", async (t) => {
  const root = await temporaryFolder(t);
  const [runs, data] = [join(root, "runs"), await writeTokens(join(root, "data"))];
  const recipe = { steps: 2, tune: ["norms"] };
  await smallRun({ engine, folder: join(runs, "one"), data, recipe });
  const open = join(runs, "sweep/two");
  await mkdir(join(runs, "sweep"));
  const stopAt = ({ kind }: { kind: string }) => kind === "step";
  await smallRun({ engine, folder: open, data, recipe, stopAt });
  await mkdir(join(runs, "no-run"));
  await mkdir(join(runs, "damaged"));
  await writeFile(join(runs, "damaged/recipe.yaml"), "][");
  // What a killed deletion leaves is no run.
  await mkdir(join(runs, "gone.tmp-1-0a0b0c0d"));
  await writeFile(join(runs, "gone.tmp-1-0a0b0c0d/recipe.yaml"), "base: x\ndata: y");

  const found = await listRuns(runs);
  assert.deepEqual(
    found.map(({ name, state }) => [name, state]),
    [
      ["damaged", "unfinished"],
      ["sweep/two", "unfinished"],
      ["one", "finished"],
    ],
  );
  const one = found[2]!;
  const report = (await readJson(join(runs, "one/report.json"))) as unknown as RunReport;
  assert.deepEqual([one.before, one.after], [report.before.perplexity, report.after.perplexity]);
  assert.equal(one.percent, report.delta.percent);
  assert.deepEqual([one.data, one.tune], [[data], ["norms"]]);
  assert.ok(one.sizeBytes > 10_000);
  await assert.rejects(listRuns(join(root, "none")), /there is no folder/);

  const lock = await lockRun(open);
  assert.equal((await listRuns(open))[0]!.state, "running");
  await assert.rejects(deleteRun(open), /is in use by process/);
  await lock.release();
  await deleteRun(open);
  assert.deepEqual(await readdir(join(runs, "sweep")), []);
  await symlink(join(runs, "one"), join(root, "link"));
  for (const name of [join(runs, "no-run"), data, runs, join(runs, "one/final"), "none"])
    assert.throws(() => findRuns([name]), /is not the folder of a run, so it is not deleted/);
  assert.throws(() => findRuns([join(root, "link")]), /is a link to a run/);
  assert.ok(existsSync(join(runs, "one/final")));
});
