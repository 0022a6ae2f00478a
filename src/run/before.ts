// The base's losses before training: scored once in a run, and kept with the identity of all that the run depends on.

import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import { numScored, type Window } from "../data/windows.ts";
import type { WindowLoss } from "../evaluate/scorer.ts";
import { writeFileAtomic } from "../files/atomic.ts";
import { readJsonIfSound } from "../files/json.ts";
import { runFiles } from "../files/names.ts";
import { checkFinite, type WindowPlan } from "../evaluate/evaluation.ts";
import type { Prepared } from "./prepare.ts";

/** The base's losses on the report's windows, scored once in a run and kept with what they, and the run, depend on. */
export async function scoreBase(
  { runDir, prepared }: { readonly runDir: string; readonly prepared: Prepared },
  baseSha256: string,
  score: () => Promise<WindowLoss[]>,
): Promise<readonly WindowLoss[]> {
  const path = join(runDir, runFiles.before);
  const { trainSha256, evaluation, reportPlan } = prepared;
  const inputs = { base: baseSha256, data: trainSha256, evalData: evaluation.dataSha256 };
  const stored = await readJsonIfSound(path);
  if (stored) {
    const known = (stored["sha256"] ?? {}) as Readonly<Record<string, unknown>>;
    for (const [name, sha256] of Object.entries(inputs))
      if (known[name] !== sha256)
        throw new UserError(`${runDir}: the content of ${name} has changed since the run began`, {
          hint: "bring it back to resume, or start a new run",
        });
    const { nats } = stored;
    if (Array.isArray(nats) && nats.length === reportPlan.windows.length)
      return reportPlan.windows.map((window, i) => {
        return { nats: nats[i] as number, numTokens: numScored([window]) };
      });
  }
  const losses = await score();
  checkFinite(losses, reportPlan);
  const nats = losses.map((loss) => loss.nats);
  await writeFileAtomic(path, `${JSON.stringify({ sha256: inputs, nats })}\n`);
  return losses;
}

/** The losses of one plan's windows taken from another's, where all are among them. */
export function subset(
  losses: readonly WindowLoss[],
  from: WindowPlan,
  to: WindowPlan,
): readonly WindowLoss[] | undefined {
  const key = ({ text, start }: Window) => `${text} ${start}`;
  const known = new Map(from.windows.map((window, i) => [key(window), losses[i]!]));
  const found = to.windows.map((window) => known.get(key(window)));
  return found.every((loss) => loss !== undefined) ? found : undefined;
}
