// A prompt continued in a page, by a model as it was or as it is trained: one graph of a whole window, run for each token.
// T = sequence, D = hidden, V = vocabulary

import { toInt64 } from "../core/dtype.ts";
import { UserError } from "../core/errors.ts";
import { createRandom, type Random } from "../core/random.ts";
import type { Tokenizer } from "../data/tokenizer/read-tokenizer.ts";
import type { Engine, Feeds } from "../engines/engine.ts";
import { cast, input, matMul } from "../graph/build.ts";
import { simplify } from "../graph/passes.ts";
import { boundWeights, buildForward } from "../model/graph.ts";
import type { OpenedModel } from "../model/opened.ts";
import { vocabularyLogits } from "../nn/loss.ts";

export interface Asked {
  readonly prompt: string;
  readonly maxNewTokens: number;
  /** Divides the logits; 0: the most probable token each time. */
  readonly temperature: number;
  readonly seed: number;
}

/** Compiles the logits of one place; `trainable` is fed with each answer. */
export async function openPrompt(
  engine: Engine,
  opened: OpenedModel,
  tokenizer: Tokenizer,
  { context, trainable }: { readonly context: number; readonly trainable: ReadonlySet<string> },
) {
  const { tiling } = engine;
  const graph = buildForward(opened, { batchSize: 1, context }, { trainable, tiling });
  // One where the last token is: its row of hidden states alone meets the vocabulary.
  const last_11D = matMul(input("last", [1, 1, context], "F32"), cast(graph.hidden, "F32"));
  const logits = vocabularyLogits(last_11D, cast(graph.head, "F32"), graph.logitCap);
  const program = await engine.compile(simplify({ logits }), boundWeights(opened));
  return {
    /** Gives the text as it comes; what leaves the window to the left is forgotten. */
    async *answer({ prompt, maxNewTokens, temperature, seed }: Asked, feeds: Feeds) {
      const { ids } = tokenizer.encode([{ text: prompt, isTarget: true, isLast: true }]);
      const all = [...tokenizer.prefix, ...ids];
      if (all.length === 0)
        throw new UserError("the prompt has no tokens", { hint: "write some text" });
      const start = all.length;
      const random = createRandom(seed);
      while (all.length < start + maxNewTokens) {
        const window = all.slice(-context);
        const padded = Int32Array.from({ length: context }, (_, i) => window[i] ?? 0);
        const last = new Float32Array(context);
        last[window.length - 1] = 1;
        const results = await program.run({ ...feeds, ids: toInt64(padded), last });
        const next = drawn(results["logits"]!, temperature, random);
        if (next === tokenizer.endOfText) return;
        all.push(next);
        yield tokenizer.spell(all.slice(start)).join("");
      }
    },
    dispose: () => program.dispose(),
  };
}

/** The place of the largest logit, or one drawn by softmax of the logits over the temperature. */
function drawn(logits: Float32Array, temperature: number, random: Random): number {
  const most = logits.reduce((a, b) => Math.max(a, b));
  if (temperature === 0) return logits.indexOf(most);
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - most) / temperature));
  let rest = random.uniform() * weights.reduce((a, b) => a + b);
  const found = weights.findIndex((weight) => (rest -= weight) < 0);
  return found < 0 ? logits.indexOf(most) : found;
}
