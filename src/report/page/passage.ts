// A passage whose tokens are coloured by their temperatures, of a layer and head or their mean.

import type { RunDetails } from "../data.ts";
import { choice, element, section, table } from "./dom.ts";

/** No text gets a background so strong that it reads badly. */
const STRONGEST_PERCENT = 45;

const spansOf = (tokens: readonly string[]) =>
  tokens.map((token) => element("span", {}, token.replaceAll("\n", "⏎\n")));

/** Calls `change` now, and whenever another value is chosen. */
function controlsOf(selects: Readonly<Record<string, HTMLSelectElement>>, change: () => void) {
  const labels = Object.entries(selects).map(([name, select]) => {
    select.addEventListener("change", change);
    return element("label", {}, `${name} `, select);
  });
  change();
  return element("div", { class: "controls" }, ...labels);
}

/** Whether a value is chosen, by itself or in the mean of all. */
const isIn = (select: HTMLSelectElement, value: string | number) =>
  ["mean", String(value)].includes(select.value);

function paint(span: HTMLElement, hue: string, strength: number): void {
  const percent = Math.round(STRONGEST_PERCENT * strength);
  span.style.background = `color-mix(in srgb, ${hue} ${percent}%, transparent)`;
}

export function passageSection({ tokens, temperatures }: NonNullable<RunDetails["passage"]>) {
  const spans = spansOf(tokens);
  const scale = element("p", { class: "how" });
  const numHeads = Math.max(...temperatures.map(({ taus }) => taus.length));
  const selects = {
    Projection: choice(temperatures.map(({ projection }) => projection)),
    Layer: choice(["mean", ...temperatures.map(({ layer }) => layer)]),
    Head: choice(["mean", ...Array(numHeads).keys()]),
  };
  const color = () => {
    const rows = temperatures
      .filter((of) => isIn(selects.Layer, of.layer) && isIn(selects.Projection, of.projection))
      // Heads that share a key and value are shown with them.
      .flatMap(({ taus }) => {
        const shared = numHeads / taus.length;
        const numbers = [...Array(numHeads).keys()].filter((head) => isIn(selects.Head, head));
        return numbers.map((head) => taus[Math.floor(head / shared)]!);
      });
    const taus = tokens.map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length);
    const farthest = Math.max(1e-9, ...taus.map((tau) => Math.abs(tau - 1)));
    for (const [i, span] of spans.entries()) {
      const hue = taus[i]! < 1 ? "var(--cool)" : "var(--warm)";
      paint(span, hue, Math.abs(taus[i]! - 1) / farthest);
      span.title = `τ ${taus[i]!.toFixed(3)}`;
    }
    scale.textContent = `Blue below 1, orange above; the farthest τ is 1 ± ${farthest.toFixed(2)}.`;
  };
  const controls = controlsOf(selects, color);
  const how = "The first tokens of a held-out window; point at one for its τ.";
  const passage = element("p", { class: "passage" }, ...spans);
  return section("Temperatures on text", how, controls, scale, passage);
}

export function attentionSection(attention: NonNullable<RunDetails["attention"]>) {
  const { tokens, entropy, ...packed } = attention;
  const sides = (["before", "after"] as const).map((name) => {
    const layers = packed[name].map((of) =>
      Uint8Array.from(atob(of), (byte) => byte.charCodeAt(0)),
    );
    return { name, layers, spans: spansOf(tokens) };
  });
  const selects = {
    Token: choice(tokens.map((token, i) => `${i}: ${JSON.stringify(token)}`)),
    Layer: choice(["mean", ...entropy.keys()]),
  };
  selects.Token.selectedIndex = tokens.length >> 1;
  const show = () => {
    const from = selects.Token.selectedIndex;
    const rows = sides.map(({ layers }) => {
      const chosen = layers
        .filter((_, i) => isIn(selects.Layer, i))
        .map((of) => of.subarray((from * (from + 1)) / 2));
      const share = (to: number) =>
        chosen.reduce((sum, of) => sum + of[to]!, 0) / chosen.length / 250;
      return tokens.map((_, to) => (to > from ? 0 : share(to)));
    });
    const most = Math.max(1e-9, ...rows.flat());
    for (const [side, { spans }] of sides.entries())
      for (const [i, span] of spans.entries()) {
        paint(span, "var(--warm)", rows[side]![i]! / most);
        span.title = `${(100 * rows[side]![i]!).toFixed(1)} %`;
        span.style.textDecoration = i === from ? "underline" : "";
      }
  };
  for (const [i, span] of sides.flatMap(({ spans }) => [...spans.entries()]))
    span.addEventListener("click", () => {
      selects.Token.selectedIndex = i;
      show();
    });
  const rows = entropy.map(([from, to], layer) => {
    return [String(layer), ...[from, to, to - from].map((nats) => nats.toFixed(3))];
  });
  return section(
    "Attention on text",
    "How far a row of attention spreads, in nats, mean over heads and tokens, and where the chosen token looks, mean over heads: full colour is the largest share of both texts.",
    table("Entropy of attention by layer", ["layer", "before", "after", "change"], rows),
    controlsOf(selects, show),
    ...sides.flatMap(({ name, spans }) => [
      element("p", {}, `${name}:`),
      element("p", { class: "passage" }, ...spans),
    ]),
  );
}
