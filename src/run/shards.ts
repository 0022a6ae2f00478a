// An evaluation in shares: each of several jobs leaves the losses of its windows in a file that is named by all that they
// depend on, and whoever has all of them has the losses that one process would have, bit for bit.

import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import type { Shard } from "../data/windows.ts";
import { type EvaluationPlan, identityOf } from "../evaluate/evaluation.ts";
import type { Losses } from "../evaluate/scorer.ts";
import { makeFolder, writeFileAtomic } from "../files/atomic.ts";
import { type JsonObject, readJsonIfSound } from "../files/json.ts";
import { insertionsOf } from "../insertions/kinds.ts";
import { insertedTensors, type OpenedModel } from "../model/opened.ts";

/** What losses are of, what computed them, and of each window what it gave; null where it is another shard's. */
interface Share {
  readonly of: JsonObject;
  readonly device: string;
  readonly nats: readonly (number | null)[];
  /** Where a task asks: of each target 1 where it is the argmax, else 0. */
  readonly argmax?: readonly (string | null)[];
}

/** In a folder the shares of what is measured of a model. */
export async function sharesIn(
  folder: string,
  opened: OpenedModel,
  { conditions, groups, needsArgmax }: EvaluationPlan,
  batchSize: number,
) {
  const windows = groups.flatMap((group) => group.windows);
  const inserted = insertionsOf(opened).flatMap(([kind, { insertion }]) => [
    JSON.stringify(insertion.toJson(opened.model)),
    ...insertedTensors(kind, opened).map(({ data }) => data as Uint8Array),
  ]);
  const of: JsonObject = {
    ...conditions,
    windows: windows.length,
    modelSha256: await identityOf(opened),
    adapter: inserted.length > 0 ? sha256Of(...inserted) : "none",
    quantized: opened.quantized?.spec ?? "none",
    batchSize,
    rows: groups.map(({ context, isPacked }) => `${context}${isPacked ? " packed" : ""}`),
  };
  const { task } = conditions;
  const stem = `${task}-${sha256Of(JSON.stringify(of)).slice(0, 16)}`;
  const pathOf = ({ index, count }: Shard) => join(folder, `${stem}-${index}-of-${count}.json`);
  const read = async (shard: Shard) => {
    const share = (await readJsonIfSound(pathOf(shard))) as Share | undefined;
    return share?.nats?.length === windows.length ? share : undefined;
  };
  return {
    isDone: async (shard: Shard) => Boolean(await read(shard)),
    /** Leaves a shard's losses: those that have tokens. */
    async write(shard: Shard, losses: Losses, device: string): Promise<void> {
      const own = <T>(value: (loss: Losses[number]) => T) =>
        losses.map((loss) => (loss.numTokens > 0 ? value(loss) : null));
      const argmax = needsArgmax && { argmax: own(({ isArgmax }) => isArgmax!.join("")) };
      const share: Share = { of, device, nats: own(({ nats }) => nats), ...argmax };
      await makeFolder(folder);
      await writeFileAtomic(pathOf(shard), `${JSON.stringify(share)}\n`);
    },
    /** The losses of all shards, and what computed them. */
    async collect(): Promise<{ readonly losses: Losses; readonly devices: string }> {
      const names = existsSync(folder) ? readdirSync(folder) : [];
      const ours = names.filter((name) => name.startsWith(`${stem}-`));
      const counts = new Set(ours.map((name) => Number(/-of-(\d+)\.json$/.exec(name)?.[1] ?? 0)));
      const [shares, missing]: [Share[], string[]] = [[], []];
      for (const count of counts)
        for (let index = 1; index <= count; index++) {
          const share = await read({ index, count });
          if (share) shares.push(share);
          else missing.push(`${index}/${count}`);
        }
      const losses = windows.map(({ numTargets: numTokens }, i) => {
        const { nats, argmax } = shares.find(({ nats }) => nats[i] !== null) ?? {};
        const bits = argmax?.[i];
        const isArgmax = bits && { isArgmax: Uint8Array.from(bits, Number) };
        return { nats: nats?.[i] ?? Number.NaN, numTokens, ...isArgmax };
      });
      if (losses.every(({ nats }) => Number.isFinite(nats)))
        return { losses, devices: [...new Set(shares.map(({ device }) => device))].join(", ") };
      const other = names.find((name) => name.startsWith(`${task}-`));
      if (ours.length === 0 && other) throw await isOfOther(of, join(folder, other));
      const which = missing.length > 0 ? `: ${missing.join(", ")}` : "";
      throw new UserError(`${folder}: shards of ${task} are missing or damaged${which}`, {
        hint: "run them, each by the same command with --shard i/n in the place of --collect",
        exitCode: 1,
      });
    },
  };
}

/** Says how what a share is of differs from what is asked for. */
async function isOfOther(asked: JsonObject, path: string): Promise<UserError> {
  const { of = {} } = ((await readJsonIfSound(path)) ?? {}) as Partial<Share>;
  const shown = (value: unknown) => JSON.stringify(value)?.replaceAll('"', "").slice(0, 40);
  const differing = Object.keys(asked)
    .map((key) => [key, shown(asked[key]), shown(of[key])] as const)
    .filter(([, now, then]) => now !== then)
    .map(([key, now, then]) => `${key} is ${now}, was ${then ?? "unknown"}`);
  return new UserError(`${path} is of something else: ${differing.join("; ")}`, {
    hint: "collect with the model, data and options that the shards were given",
  });
}

function sha256Of(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}
