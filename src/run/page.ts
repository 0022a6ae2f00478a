// What a run leaves for people to look at: its page, and what the page shows beside the report.

import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { arch, platform, version } from "node:process";
import { compareTokens, type TokenLosses, tokenLosses } from "../evaluate/details.ts";
import type { RunReport } from "../evaluate/results.ts";
import type { HeadTemperatures, WindowLoss } from "../evaluate/scorer.ts";
import { writeFileAtomic } from "../files/atomic.ts";
import { runFiles } from "../files/names.ts";
import { readRun, type RunDetails } from "../report/data.ts";
import { writePage } from "../report/document.ts";
import type { Prepared } from "./prepare.ts";

interface Scored {
  readonly heads: readonly HeadTemperatures[];
  /** Of single tokens; runs that an early version began have none. */
  readonly before: TokenLosses | undefined;
  /** After training. */
  readonly losses: readonly WindowLoss[];
}

export async function leavePage(
  {
    runDir,
    reportPlan: plan,
    spell,
  }: Pick<Prepared, "reportPlan" | "spell"> & { readonly runDir: string },
  report: RunReport,
  { heads, before, losses }: Scored,
): Promise<void> {
  const details: RunDetails = {
    heads,
    ...(before && compareTokens(plan, before, tokenLosses(plan, losses), spell)),
    machine: thisMachine(),
  };
  await writeFileAtomic(join(runDir, runFiles.details), `${JSON.stringify(details)}\n`);
  await writePage(join(runDir, runFiles.page), await readRun(runDir, report));
}

/** As far as a run's numbers and its time depend on it. */
function thisMachine(): RunDetails["machine"] {
  const model = cpus()[0]?.model.trim();
  return {
    processor: `${model || arch}, ${cpus().length} threads`,
    memory: `${Math.round(totalmem() / 1e9)} GB`,
    system: `${platform} ${arch}`,
    "Node.js": version,
  };
}
