// A prompt continued on the base and on what was trained, side by side: one graph of a whole window, run for each token.
// T = sequence, D = hidden, V = vocabulary

import { toInt64 } from "../../core/dtype.ts";
import { messageOf, UserError } from "../../core/errors.ts";
import { createRandom, type Random } from "../../core/random.ts";
import type { Tokenizer } from "../../data/tokenizer/read-tokenizer.ts";
import type { Engine, Feeds } from "../../engines/engine.ts";
import { cast, input, matMul } from "../../graph/build.ts";
import { simplify } from "../../graph/passes.ts";
import { boundWeights, buildForward } from "../../model/graph.ts";
import { vocabularyLogits } from "../../nn/loss.ts";
import { element, form, number, section } from "../../report/page/dom.ts";
import type { PageRun } from "../fine-tune.ts";

export async function promptSection(engine: Engine, tokenizer: Tokenizer, run: PageRun) {
  const { opened, context, feeds, recipe } = run;
  const how = { trainable: new Set(Object.keys(feeds)), tiling: engine.tiling };
  const graph = buildForward(opened, { batchSize: 1, context }, how);
  // One where the last token is: its row of hidden states alone meets the vocabulary.
  const last_11D = matMul(input("last", [1, 1, context], "F32"), cast(graph.hidden, "F32"));
  const logits = vocabularyLogits(last_11D, cast(graph.head, "F32"), graph.logitCap);
  const program = await engine.compile(simplify({ logits }), boundWeights(opened));
  const models = { base: Object.fromEntries(opened.temperatures!.values), trained: feeds };

  const text = element("textarea", { rows: "3", required: "" }, "It was");
  const numbers = {
    Tokens: number(40, 1),
    "Temperature (0: greedy)": number(0.8, 0, "any"),
    Seed: number(recipe.seed, 0),
  };
  const button = element("button", {}, "Continue");
  const asking = form([["Prompt", text, "wide"], ...Object.entries(numbers)], button);
  const shown = element("div", { class: "grid", "aria-live": "polite" });

  /** Writes the text as it comes; what leaves the window to the left is forgotten. */
  async function write(output: HTMLElement, prompt: string, asked: number[], feeds: Feeds) {
    const [maxNewTokens = 0, temperature = 0, seed = 0] = asked;
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
      output.textContent = prompt + tokenizer.spell(all.slice(start)).join("");
    }
  }
  const answer = async () => {
    const asked = Object.values(numbers).map(({ valueAsNumber }) => valueAsNumber);
    const prompt = text.value;
    const outputs = Object.entries(models).map(([name, feeds]) => {
      const output = element("pre");
      shown.append(element("div", {}, element("h3", {}, name), output));
      return { output, feeds };
    });
    for (const { output, feeds } of outputs) await write(output, prompt, asked, feeds);
  };
  asking.addEventListener("submit", (event) => {
    event.preventDefault();
    button.disabled = true;
    shown.replaceChildren();
    answer()
      .catch((error: unknown) => {
        shown.replaceChildren(element("p", { class: "bad", role: "alert" }, messageOf(error)));
      })
      .finally(() => (button.disabled = false));
  });
  const content = section("Prompt", "The same prompt and the same draws for both.", asking, shown);
  return { content, dispose: () => program.dispose() };
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
