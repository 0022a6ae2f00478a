// A run's folder after an accident: some checkpoints cut off, altered, swapped or gone. The last sound one is found.

import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { readFloats } from "../../../src/files/safetensors.ts";
import {
  latestSnapshot,
  removeLeftovers,
  saveSnapshot,
  truncateMetrics,
} from "../../../src/files/run-folder.ts";
import { appendLine, readLines } from "../../../src/files/json.ts";
import { openModel } from "../../../src/model/open.ts";
import { recipeToYaml } from "../../../src/options/load.ts";
import { recipeSchema } from "../../../src/options/schema.ts";
import { INITIAL_STATE } from "../../../src/train/loop.ts";
import { augment, trainedTensors } from "../../../src/train/groups.ts";
import { restoreTensors, type RunState, toSnapshot } from "../../../src/train/snapshot.ts";
import { fixture } from "../../run/small-run.ts";
import { expect, reading } from "../contract.ts";
import { below, happens, mutateBytes, mutateJson, pick } from "../mutate.ts";
import { type Files, lay, type Prepare, subject } from "../subject.ts";

const steps = [1, 2, 3];

interface Case {
  readonly files: Files;
  /** Opened as a model, too. */
  readonly isOpened: boolean;
}

export const snapshots: Prepare = async ({ folder }) => {
  const base = fixture("gpt2");
  const recipe = recipeSchema.parse({
    base,
    data: "x.bin",
    tune: "temperatures,norms",
    maxAddedShare: 0.5,
  });
  const opened = augment(await openModel(base), recipe);
  const tensors = await trainedTensors(opened, recipe, readFloats);
  const stateOf = (step: number): RunState => {
    const loop = { ...INITIAL_STATE, step };
    const counters = { numTokens: 7 * step, trainSeconds: 1, elapsedSeconds: 2 };
    return { loop, cursor: { seed: 0, epoch: 0, index: step }, ...counters };
  };
  await lay(folder, { "recipe.yaml": recipeToYaml(recipe) });
  for (const step of steps) {
    await appendLine(join(folder, "metrics.jsonl"), { kind: "step", step });
    for (const { values, mean, square } of tensors)
      [values, mean, square].forEach((list, i) => list.fill(step + i / 8));
    const adapterConfig = opened.temperatures!.insertion.toJson(opened.model);
    await saveSnapshot(folder, toSnapshot(tensors, stateOf(step)), { adapterConfig });
  }
  const whole: Record<string, Buffer> = {};
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) whole[relative(folder, path)] = await readFile(path);
  }
  const names = Object.keys(whole).filter((name) => name !== "recipe.yaml");

  return subject<Case>({
    mutate: (random) => {
      const files: Record<string, Uint8Array | string | null> = {};
      for (let left = 1 + below(random, 4); left > 0; left--) {
        const [name, other] = [pick(random, names), pick(random, names)];
        const bytes = whole[name]!;
        const json = () => mutateJson(JSON.parse(bytes.toString()), random);
        files[name] = pick(random, [
          () => null,
          () => whole[other]!,
          () => bytes.subarray(0, below(random, bytes.length)),
          () => mutateBytes(bytes, random),
          () => (name.endsWith(".json") ? json() : mutateBytes(bytes, random)),
        ])();
      }
      if (happens(random, 0.1)) files["step-000009.tmp-1-0badcafe/state.json"] = "{";
      return { files, isOpened: happens(random, 0.2) };
    },
    check: async ({ files, isOpened }) => {
      await lay(folder, files);
      const found = await reading([folder], async () => {
        await removeLeftovers(folder);
        const last = await latestSnapshot(folder);
        if (last) await restoreTensors(last.dir, tensors);
        await truncateMetrics(folder, last?.step ?? -1);
        return last;
      });
      const metrics = "refusal" in found ? [] : await readLines(join(folder, "metrics.jsonl"));
      const model = isOpened ? await reading([folder], () => openModel(folder)) : undefined;
      const changed = [...Object.keys(files), "metrics.jsonl"].filter((name) => whole[name]);
      await lay(folder, Object.fromEntries(changed.map((name) => [name, whole[name]!])));

      const isSound = (step: number) =>
        !names.some((name) => {
          if (!name.startsWith(`step-00000${step}/`)) return false;
          const content = files[name];
          return (
            content !== undefined &&
            (content === null || !whole[name]!.equals(Buffer.from(content)))
          );
        });
      const sound = Math.max(0, ...steps.filter(isSound));
      if (model && "value" in model) {
        const [value] = [...model.value.temperatures!.values.values()][0]!;
        expect(
          value! >= sound && steps.includes(value!),
          () => `the model is of step ${value}, not ${sound}`,
        );
      }
      if ("refusal" in found) {
        const isOfMetrics = found.refusal.message.includes("metrics.jsonl");
        expect(
          sound === 0 || isOfMetrics,
          () => `step ${sound} is sound: ${found.refusal.message}`,
        );
        return "refused";
      }
      const step = found.value?.step ?? 0;
      // A state.json that was changed and says the same is sound, too.
      expect(step >= sound, () => `step ${step} is taken, ${sound} is sound`);
      if (found.value) {
        expect(
          isDeepStrictEqual(found.value.state, stateOf(step)),
          () => `the state is another's than ${step}'s`,
        );
        for (const { name, values, mean, square } of tensors)
          [values, mean, square].forEach((list, i) =>
            expect(
              list.every((value) => value === step + i / 8),
              () => `${name} of step ${step} is ${list.join()}`,
            ),
          );
        if (files["metrics.jsonl"] === undefined)
          expect(
            metrics.map((line) => line["step"]).join() === steps.filter((s) => s <= step).join(),
            () => "metrics",
          );
      }
      return step === 3 ? "same" : "other";
    },
  });
};
