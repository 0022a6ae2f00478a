// What a run leaves for people to look at: its page, and what the page shows beside the report.

import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { arch, platform, version } from "node:process";
import type { AttentionStatistics } from "../evaluate/attention.ts";
import { compareTokens, idsAsText, type TokenLosses, tokenLosses } from "../evaluate/details.ts";
import type { RunReport } from "../evaluate/results.ts";
import type { WindowLoss } from "../evaluate/scorer.ts";
import { writeFileAtomic } from "../files/atomic.ts";
import { runFiles } from "../files/names.ts";
import { readRun, type RunDetails } from "../report/data.ts";
import { writePage } from "../report/document.ts";
import type { Prepared } from "./prepare.ts";

interface Scored {
  /** Of attention, as the losses were scored. */
  readonly observed: AttentionStatistics;
  /** Of single tokens; runs that an early version began have none. */
  readonly before: TokenLosses | undefined;
  /** After training. */
  readonly losses: readonly WindowLoss[];
}

/** Values of τ that a passage may have: of a model with many heads it is shorter. */
const PASSAGE_VALUES = 40_000;

export async function leavePage(
  {
    runDir,
    reportPlan: plan,
    spell,
  }: Pick<Prepared, "reportPlan" | "spell"> & { readonly runDir: string },
  report: RunReport,
  { observed, before, losses }: Scored,
): Promise<void> {
  const details: RunDetails = {
    heads: observed.byHead(),
    ...passageOf(plan, observed, spell),
    ...(before && compareTokens(plan, before, tokenLosses(plan, losses), spell)),
    machine: thisMachine(),
  };
  await writeFileAtomic(join(runDir, runFiles.details), `${JSON.stringify(details)}\n`);
  await writePage(join(runDir, runFiles.page), await readRun(runDir, report));
}

function passageOf(
  { texts }: Prepared["reportPlan"],
  observed: AttentionStatistics,
  spell: Prepared["spell"] = idsAsText,
): Pick<RunDetails, "passage"> {
  const [all, { firstWindow: window }] = [observed.byToken(), observed];
  if (!window || all.length === 0) return {};
  const heads = all.reduce((sum, { taus }) => sum + taus.length, 0);
  const length = Math.min(all[0]!.taus[0]!.length, Math.max(8, Math.floor(PASSAGE_VALUES / heads)));
  const { text, start } = window;
  const short = (taus: readonly number[]) =>
    taus.slice(0, length).map((tau) => Number(tau.toFixed(3)));
  return {
    passage: {
      tokens: spell(texts[text]!.tokens.subarray(start, start + length)),
      temperatures: all.map(({ taus, ...site }) => ({ ...site, taus: taus.map(short) })),
    },
  };
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
