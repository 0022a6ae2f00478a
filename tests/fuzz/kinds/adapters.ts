// An adapter's folder, its config and its tensors, put on its base.

import { cp, readFile } from "node:fs/promises";
import { join } from "node:path";
import { openModel } from "../../../src/model/open.ts";
import { fixture } from "../../run/small-run.ts";
import { expect, reading } from "../contract.ts";
import { happens, mutateBytes, mutateJson, pick } from "../mutate.ts";
import { straightReading } from "../straight-reading.ts";
import { type Files, lay, type Prepare, subject } from "../subject.ts";
import { mutateSafetensors } from "./safetensors.ts";

const [configName, weightsName] = ["ssa_config.json", "ssa_adapter.safetensors"] as const;

interface Case {
  readonly files: Files;
  readonly untouched: string;
}

interface Base {
  readonly config: Buffer;
  readonly weights: Buffer;
  /** What is read of them. */
  readonly read: string;
}

export const adapters: Prepare = async ({ folder }) => {
  const [base, adapter] = [join(folder, "base"), join(folder, "adapter")];
  await cp(fixture("gpt2"), base, { recursive: true });
  const read = async () => {
    const { temperatures, model } = await openModel(base, { adapter });
    const values = [...temperatures!.values].map(([name, list]) => [name, [...list].map(String)]);
    return { json: temperatures!.insertion.toJson(model), values };
  };
  const bases: Base[] = [];
  for (const name of ["constant", "default", "full", "linear"]) {
    const from = join(fixture("gpt2"), "ssa", name);
    const [config, weights] = [join(from, configName), join(from, weightsName)];
    const files = { [configName]: await readFile(config), [weightsName]: await readFile(weights) };
    await cp(from, adapter, { recursive: true });
    bases.push({
      config: files[configName],
      weights: files[weightsName],
      read: JSON.stringify(await read()),
    });
  }
  return subject<Case>({
    mutate: (random) => {
      const { config, weights, read: untouched } = pick(random, bases);
      const files: Record<string, Uint8Array | string | null> = {
        [configName]: config,
        [weightsName]: weights,
      };
      const isConfig = happens(random, 0.5);
      if (isConfig)
        files[configName] = happens(random, 0.2)
          ? mutateBytes(config, random)
          : mutateJson(JSON.parse(config.toString()), random);
      if (!isConfig || happens(random, 0.1))
        files[weightsName] = mutateSafetensors(weights, random);
      if (happens(random, 0.02)) files[pick(random, [configName, weightsName])] = null;
      return { files, untouched };
    },
    check: async ({ files, untouched }) => {
      await lay(adapter, files);
      const found = await reading([folder], read);
      if ("refusal" in found) return "refused";
      const { json, values } = found.value;
      const config = JSON.parse(String(files[configName])) as Record<string, unknown>;
      for (const key of ["format_version", "feature", "position"])
        expect(json[key] === config[key], () => `${key} is ${String(json[key])}`);
      for (const key of ["query", "key", "value"])
        for (const [part, isOn] of Object.entries(json[key] as object))
          expect(
            isOn === ((config[key] as Record<string, unknown>)[part] ?? false),
            () => `${key}.${part}`,
          );
      const stored = straightReading(files[weightsName] as Buffer);
      expect(
        stored?.size === values.length,
        () => `${values.length} temperatures of ${stored?.size}`,
      );
      for (const [name, list] of values as [string, string[]][]) {
        const tensor = stored!.get(name)!;
        if (tensor.dtype !== "F32") continue;
        const floats = new Float32Array(new Uint8Array(tensor.bytes).buffer);
        expect([...floats].map(String).join() === list.join(), () => `${name} is ${list.join()}`);
      }
      return JSON.stringify(found.value) === untouched ? "same" : "other";
    },
  });
};
