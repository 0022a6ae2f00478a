// A prompt on the base and on what was trained, side by side.

import { messageOf } from "../../core/errors.ts";
import type { Tokenizer } from "../../data/tokenizer/read-tokenizer.ts";
import type { Engine } from "../../engines/engine.ts";
import { element, section } from "../../report/page/dom.ts";
import type { PageRun } from "../fine-tune.ts";
import { openPrompt } from "../prompt.ts";
import { fields, number } from "./form.ts";

export async function promptSection(engine: Engine, tokenizer: Tokenizer, run: PageRun) {
  const { opened, context, feeds, recipe } = run;
  const trainable = new Set(Object.keys(feeds));
  const prompt = await openPrompt(engine, opened, tokenizer, { context, trainable });
  const models = { base: Object.fromEntries(opened.temperatures!.values), trained: feeds };
  const text = element("textarea", { rows: "3", required: "" }, "It was");
  const [count, temperature, seed] = [number(40, 1), number(0.8, 0, "any"), number(recipe.seed, 0)];
  const shown = element("div", { class: "grid", "aria-live": "polite" });
  const button = element("button", {}, "Continue");
  const form = fields(
    ["Prompt", text, "wide"],
    ["Tokens", count],
    ["Temperature (0: greedy)", temperature],
    ["Seed", seed],
  );
  form.append(button);
  const answer = async () => {
    const outputs = Object.entries(models).map(([name, values]) => {
      const output = element("pre");
      return { name, values, output };
    });
    shown.replaceChildren(
      ...outputs.map(({ name, output }) => element("div", {}, element("h3", {}, name), output)),
    );
    const how = { maxNewTokens: count.valueAsNumber, temperature: temperature.valueAsNumber };
    const asked = { ...how, prompt: text.value, seed: seed.valueAsNumber };
    for (const { values, output } of outputs) {
      for await (const more of prompt.answer(asked, values)) output.textContent = text.value + more;
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    button.disabled = true;
    answer()
      .catch((error: unknown) => {
        shown.replaceChildren(element("p", { class: "bad", role: "alert" }, messageOf(error)));
      })
      .finally(() => (button.disabled = false));
  });
  const content = section("Prompt", "The same prompt and the same draws for both.", form, shown);
  return { content, dispose: () => prompt.dispose() };
}
