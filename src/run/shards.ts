// An evaluation in shares: each of several jobs leaves the losses of its windows in a file that is named by all that they
// depend on, and whoever has all of them has the losses that one process would have, bit for bit.

import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import type { Shard } from "../data/windows.ts";
import type { EvaluationPlan } from "../evaluate/evaluation.ts";
import { type Conditions, differingConditions } from "../evaluate/results.ts";
import type { Losses, WindowLoss } from "../evaluate/scorer.ts";
import { makeFolder, writeFileAtomic } from "../files/atomic.ts";
import { readJsonIfSound } from "../files/json.ts";
import { fingerprintOf } from "../model/fingerprint.ts";
import type { OpenedModel } from "../model/opened.ts";

/** What losses are of, what computed them, and of each window what it gave; null where it is another shard's. */
interface Share {
  readonly of: Conditions;
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
  const of = {
    ...conditions,
    windows: windows.length,
    ...(await fingerprintOf(opened)),
    batchSize,
    rows: groups.map(({ context, isPacked }) => context + (isPacked ? " packed" : "")).join(),
  };
  const { task } = conditions;
  const hash = createHash("sha256").update(JSON.stringify(of)).digest("hex");
  const stem = `${task}-${hash.slice(0, 16)}`;
  const pathOf = ({ index, count }: Shard) => join(folder, `${stem}-${index}-of-${count}.json`);
  const read = async (path: string) => {
    const share = (await readJsonIfSound(path)) as Share | undefined;
    return share?.nats?.length === windows.length ? share : undefined;
  };
  return {
    isDone: async (shard: Shard) => Boolean(await read(pathOf(shard))),
    /** Leaves a shard's losses: those that have tokens. */
    async write(shard: Shard, losses: Losses, device: string): Promise<void> {
      const own = <T>(value: (loss: WindowLoss) => T) =>
        losses.map((loss) => (loss.numTokens > 0 ? value(loss) : null));
      const argmax = needsArgmax && { argmax: own(({ isArgmax }) => isArgmax!.join("")) };
      const share: Share = { of, device, nats: own(({ nats }) => nats), ...argmax };
      await makeFolder(folder);
      await writeFileAtomic(pathOf(shard), `${JSON.stringify(share)}\n`);
    },
    /** The losses of all shards, and what computed them. */
    async collect(): Promise<{ readonly losses: Losses; readonly devices: string }> {
      const names = existsSync(folder) ? readdirSync(folder) : [];
      const ours = names.filter((name) => name.startsWith(stem));
      const counts = new Set(ours.map((name) => Number(/(\d+)\.json$/.exec(name)?.[1])));
      const [shares, missing]: [Share[], string[]] = [[], []];
      for (const count of counts)
        for (let index = 1; index <= count; index++) {
          const share = await read(pathOf({ index, count }));
          if (share) shares.push(share);
          else missing.push(`${index}/${count}`);
        }
      const losses = windows.map(({ numTargets: numTokens }, i) => {
        const { nats, argmax } = shares.find(({ nats }) => nats[i] !== null) ?? {};
        const isArgmax = argmax?.[i] && { isArgmax: Uint8Array.from(argmax[i], Number) };
        return { nats: nats?.[i] ?? Number.NaN, numTokens, ...isArgmax };
      });
      const devices = [...new Set(shares.map(({ device }) => device))].join(", ");
      if (losses.every(({ nats }) => Number.isFinite(nats))) return { losses, devices };
      const path = join(folder, names.find((name) => name.startsWith(`${task}-`)) ?? "");
      const other = (await readJsonIfSound(path)) as Share | undefined;
      if (ours.length === 0 && other?.of) {
        const list = differingConditions(of, other.of, Object.keys(of) as (keyof typeof of)[]);
        throw new UserError(`${path} is not of what is asked for: ${list.join("; ")}`, {
          hint: "collect with the model, data and options that the shards were given",
        });
      }
      const which = missing.length > 0 ? `: ${missing.join(", ")}` : "";
      throw new UserError(`${folder}: shards of ${task} are missing or damaged${which}`, {
        hint: "run them, each by the same command with --shard i/n in the place of --collect",
        exitCode: 1,
      });
    },
  };
}
