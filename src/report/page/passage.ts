// A passage whose tokens are coloured by their temperatures, of a layer and head or their mean.

import type { RunDetails } from "../data.ts";
import { element, section } from "./dom.ts";

type Passage = NonNullable<RunDetails["passage"]>;

/** No text gets a background so strong that it reads badly. */
const STRONGEST_PERCENT = 45;

const meanOf = (values: readonly number[]) =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

export function passageSection({ tokens, temperatures }: Passage) {
  const spans = tokens.map((token) => element("span", {}, token.replaceAll("\n", "⏎\n")));
  const projections = [...new Set(temperatures.map(({ projection }) => projection))];
  const sites = () => temperatures.filter((of) => of.projection === projection.value);
  const projection = choice("Projection", projections);
  const layer = choice("Layer", []);
  const head = choice("Head", []);
  const scale = element("p", { class: "how" });

  const offer = () => {
    layer.offer(sites().map((of) => String(of.layer)));
    head.offer(sites()[0]!.taus.map((_, i) => String(i)));
  };
  const color = () => {
    const chosen = sites().filter((of) => ["mean", String(of.layer)].includes(layer.value));
    const heads = chosen.flatMap(({ taus }) =>
      head.value === "mean" ? taus : [taus[Number(head.value)]!],
    );
    const taus = tokens.map((_, i) => meanOf(heads.map((of) => of[i]!)));
    const farthest = Math.max(1e-9, ...taus.map((tau) => Math.abs(tau - 1)));
    for (const [i, span] of spans.entries()) {
      const share = Math.abs(taus[i]! - 1) / farthest;
      const hue = taus[i]! < 1 ? "var(--cool)" : "var(--warm)";
      span.style.background = `color-mix(in srgb, ${hue} ${Math.round(STRONGEST_PERCENT * share)}%, transparent)`;
      span.title = `τ ${taus[i]!.toFixed(3)}`;
    }
    scale.replaceChildren(
      `τ of ${(1 - farthest).toFixed(2)}`,
      element("span", { class: "scale" }),
      (1 + farthest).toFixed(2),
    );
  };
  projection.select.addEventListener("change", offer);
  for (const { select } of [projection, layer, head]) select.addEventListener("change", color);
  offer();
  color();
  return section(
    "Temperatures on text",
    "The first tokens of a held-out window; point at one for its τ. With a single layer and head the differences are larger than in the mean.",
    element("div", { class: "controls" }, projection.label, layer.label, head.label),
    scale,
    element("p", { class: "passage" }, ...spans),
  );
}

/** A labelled select; what `offer` gives comes after the mean, and what was chosen stays where it is still there. */
function choice(name: string, options: readonly string[]) {
  const optionsOf = (values: readonly string[]) =>
    values.map((value) => element("option", { value }, value));
  const select = element("select", {}, ...optionsOf(options));
  return {
    select,
    label: element("label", {}, `${name} `, select),
    get value() {
      return select.value;
    },
    offer(values: readonly string[]) {
      const { value } = select;
      select.replaceChildren(...optionsOf(["mean", ...values]));
      select.value = values.includes(value) ? value : "mean";
    },
  };
}
