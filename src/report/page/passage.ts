// A passage whose tokens are coloured by their temperatures, of a layer and head or their mean.

import type { RunDetails } from "../data.ts";
import { element, section } from "./dom.ts";

/** No text gets a background so strong that it reads badly. */
const STRONGEST_PERCENT = 45;

export function passageSection({ tokens, temperatures }: NonNullable<RunDetails["passage"]>) {
  const spans = tokens.map((token) => element("span", {}, token.replaceAll("\n", "⏎\n")));
  const scale = element("p", { class: "how" });
  const choice = (values: readonly (string | number)[]) => {
    const options = [...new Set(values)].map((value) => element("option", {}, String(value)));
    return element("select", {}, ...options);
  };
  const numHeads = Math.max(...temperatures.map(({ taus }) => taus.length));
  const selects = {
    Projection: choice(temperatures.map(({ projection }) => projection)),
    Layer: choice(["mean", ...temperatures.map(({ layer }) => layer)]),
    Head: choice(["mean", ...Array(numHeads).keys()]),
  };
  const isChosen = (name: keyof typeof selects, value: string | number) =>
    ["mean", String(value)].includes(selects[name].value);
  const color = () => {
    const rows = temperatures
      .filter(({ layer, projection }) => {
        return isChosen("Layer", layer) && isChosen("Projection", projection);
      })
      // Heads that share a key and value are shown with them.
      .flatMap(({ taus }) => {
        const shared = numHeads / taus.length;
        const numbers = [...Array(numHeads).keys()].filter((head) => isChosen("Head", head));
        return numbers.map((head) => taus[Math.floor(head / shared)]!);
      });
    const taus = tokens.map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length);
    const farthest = Math.max(1e-9, ...taus.map((tau) => Math.abs(tau - 1)));
    for (const [i, span] of spans.entries()) {
      const percent = Math.round((STRONGEST_PERCENT * Math.abs(taus[i]! - 1)) / farthest);
      const hue = taus[i]! < 1 ? "var(--cool)" : "var(--warm)";
      span.style.background = `color-mix(in srgb, ${hue} ${percent}%, transparent)`;
      span.title = `τ ${taus[i]!.toFixed(3)}`;
    }
    scale.textContent = `Blue below 1, orange above; the farthest τ is 1 ± ${farthest.toFixed(2)}.`;
  };
  const controls = Object.entries(selects).map(([name, select]) => {
    select.addEventListener("change", color);
    return element("label", {}, `${name} `, select);
  });
  color();
  return section(
    "Temperatures on text",
    "The first tokens of a held-out window; point at one for its τ.",
    element("div", { class: "controls" }, ...controls),
    scale,
    element("p", { class: "passage" }, ...spans),
  );
}
