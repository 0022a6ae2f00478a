// model.safetensors.index.json and the shards that it names: which tensor is where.

import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { openSafetensors, readBytes, writeSharded } from "../../../src/files/safetensors.ts";
import { openModel } from "../../../src/model/open.ts";
import { fixture } from "../../run/small-run.ts";
import { expect, reading } from "../contract.ts";
import { happens, mutateBytes, mutateJson, pick } from "../mutate.ts";
import { fingerprint, straightReading, type StraightTensor } from "../straight-reading.ts";
import { type Files, lay, type Prepare, subject } from "../subject.ts";
import { fingerprintOf, mutateSafetensors } from "./safetensors.ts";

const indexName = "model.safetensors.index.json";

export const index: Prepare = async ({ folder }) => {
  const { checkpoint } = await openModel(fixture("llama"));
  const sources = await Promise.all(
    [...checkpoint.tensors.values()].map(async (info) => {
      return { ...info, dtype: "F32" as const, data: await readBytes(info) };
    }),
  );
  await mkdir(folder, { recursive: true });
  await writeSharded(folder, sources, { maxShardBytes: 4000 });
  const names = await readdir(folder);
  const read = async (name: string) => [name, await readFile(join(folder, name))] as const;
  const whole = Object.fromEntries(await Promise.all(names.map(read))) as Record<string, Buffer>;
  whole["config.json"] = await readFile(join(fixture("llama"), "config.json"));
  const shards = names.filter((name) => name !== indexName);
  const untouched = await fingerprintOf(await openSafetensors(folder));
  await lay(folder, whole);

  return subject<Files>({
    mutate: (random) => {
      const changed: Record<string, Uint8Array | string | null> = {};
      const [one, other] = [pick(random, shards), pick(random, shards)];
      const text = whole[indexName]!;
      if (happens(random, 0.6))
        changed[indexName] = happens(random, 0.2)
          ? mutateBytes(text, random)
          : mutateJson(misplaced(JSON.parse(text.toString()), random), random);
      if (changed[indexName] === undefined || happens(random, 0.2))
        changed[one] = pick(random, [
          () => null,
          () => whole[other]!,
          () => mutateSafetensors(whole[one]!, random),
          () => mutateSafetensors(whole[one]!, random),
        ])();
      return changed;
    },
    check: async (changed) => {
      await lay(folder, changed);
      const files: Files = { ...whole, ...changed };
      const found = await reading([folder], async () => {
        const opened = await openModel(folder);
        return fingerprintOf(opened.checkpoint);
      });
      await lay(
        folder,
        Object.fromEntries(Object.keys(changed).map((name) => [name, whole[name]!])),
      );
      if ("refusal" in found) return "refused";
      const expected = straightShards(files);
      expect(found.value === expected, () => `read as\n${found.value}\nbut it is\n${expected}`);
      return found.value === untouched ? "same" : "other";
    },
  });

  /** Some tensors are said to be where they are not. */
  function misplaced(
    json: { weight_map: Record<string, string> },
    random: Parameters<typeof pick>[0],
  ) {
    if (happens(random, 0.6)) return json;
    const name = pick(random, Object.keys(json.weight_map));
    const place = pick(random, [
      ...shards,
      "config.json",
      `./${shards[0]}`,
      "../other.safetensors",
    ]);
    return { ...json, weight_map: { ...json.weight_map, [name]: place } };
  }
};

/** All tensors of the files that the index names. */
function straightShards(files: Files): string | undefined {
  const { weight_map: map } = JSON.parse(String(files[indexName])) as {
    weight_map: Record<string, string>;
  };
  const tensors = new Map<string, StraightTensor>();
  for (const name of new Set(Object.values(map)))
    for (const [tensor, value] of straightReading(Buffer.from(files[name]!)) ?? []) {
      if (tensors.has(tensor)) return undefined;
      tensors.set(tensor, value);
    }
  return fingerprint(tensors);
}
