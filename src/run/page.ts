// What a run leaves for people to look at: its page, and what the page shows beside the report.

import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { arch, platform, version } from "node:process";
import type { Window } from "../data/windows.ts";
import type { AttentionStatistics } from "../evaluate/attention.ts";
import { compareTokens, asIds, tokenLosses, type TokenLosses } from "../evaluate/details.ts";
import type { evaluatePlan } from "../evaluate/evaluation.ts";
import type { RunReport } from "../evaluate/results.ts";
import { writeFileAtomic } from "../files/atomic.ts";
import { runFiles } from "../files/names.ts";
import { readRun, type RunDetails } from "../report/data.ts";
import type { OpenedModel } from "../model/opened.ts";
import { writePage } from "../report/document.ts";
import { attentionOn } from "./inspect.ts";
import type { RunAtWork } from "./work.ts";

/** Values of τ that a passage may have: of a model with many heads it is shorter. */
const PASSAGE_VALUES = 40_000;
/** And of attention, before and after: at most so many tokens, and bytes. */
const [ATTENTION_TOKENS, ATTENTION_BYTES] = [96, 200_000];

/** `before` is of single tokens; runs that an early version began have none. */
export async function leavePage(
  work: RunAtWork,
  model: OpenedModel,
  report: RunReport,
  { observed, losses }: Pick<Awaited<ReturnType<typeof evaluatePlan>>, "observed" | "losses">,
  before: TokenLosses | undefined,
): Promise<void> {
  const { runDir, reportPlan: plan, spell = asIds } = work;
  const details: RunDetails = {
    heads: observed.sites.map(({ layer, projection, heads }) => {
      const list = (of: "mean" | "deviation") => heads.map((head) => head[of]);
      return { layer, projection, mean: list("mean"), deviation: list("deviation") };
    }),
    ...passageOf(work, observed),
    ...(await attentionIn(work, model, observed.firstWindow)),
    ...(before && compareTokens(plan, before, tokenLosses(plan, losses), spell)),
    machine: {
      processor: `${cpus()[0]?.model.trim() || arch}, ${cpus().length} threads`,
      memory: `${Math.round(totalmem() / 1e9)} GB`,
      system: `${platform} ${arch}, Node.js ${version}`,
    },
  };
  await writeFileAtomic(join(runDir, runFiles.details), `${JSON.stringify(details)}\n`);
  await writePage(join(runDir, runFiles.page), await readRun(runDir, report));
}

function passageOf({ reportPlan, spell = asIds }: RunAtWork, observed: AttentionStatistics) {
  const { sites, firstWindow: window } = observed;
  if (!window || sites.length === 0) return {};
  const rows = sites.reduce((sum, { heads }) => sum + heads.length, 0);
  const length = Math.min(sites[0]!.heads[0]!.kept.length, Math.ceil(PASSAGE_VALUES / rows));
  const short = (tau: number) => Number(tau.toFixed(3));
  const temperatures = sites.map(({ layer, projection, heads }) => {
    return { layer, projection, taus: heads.map(({ kept }) => kept.slice(0, length).map(short)) };
  });
  const { text, start } = window;
  const tokens = spell(reportPlan.texts[text]!.tokens.subarray(start, start + length));
  return { passage: { tokens, temperatures } };
}

/** How the passage's tokens attend before and after training; random weights are not kept. */
async function attentionIn(work: RunAtWork, model: OpenedModel, window: Window | undefined) {
  const { engine, base, recipe, reportPlan, spell = asIds } = work;
  const fitting = Math.floor(Math.sqrt(ATTENTION_BYTES / model.model.config.numLayers));
  const length = Math.min(window?.length ?? 0, ATTENTION_TOKENS, fitting);
  if (!window || length < 2 || recipe.init === "random") return {};
  const { tokens: all } = reportPlan.texts[window.text]!;
  const tokens = all.subarray(window.start, window.start + length);
  const before = await attentionOn(engine, base, tokens);
  const after = await attentionOn(engine, model, tokens);
  // A byte each: steps of 0.4 %.
  const packed = ({ attention }: typeof before) =>
    attention.map((of) =>
      Buffer.from(of.map((share) => Math.round(250 * share))).toString("base64"),
    );
  const entropy = after.entropies.map((of, layer) => [before.entropies[layer]!, of] as const);
  return {
    attention: { tokens: spell(tokens), entropy, before: packed(before), after: packed(after) },
  };
}
