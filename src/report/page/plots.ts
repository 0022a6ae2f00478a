/*! With Observable Plot, Copyright 2020-2025 Observable, Inc., and D3, Copyright 2010-2026 Mike Bostock:
Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.
THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE. */
// The plots of the page. Colours are the style's variables, so that both themes and paper have their own.

import * as Plot from "@observablehq/plot";
import type { ArmsPage, RunDetails, RunPage } from "../data.ts";
import { figure } from "./dom.ts";

const [ACCENT, SOFT] = ["var(--accent)", "var(--soft)"] as const;

const plot = (label: string, { x, y, ...options }: Plot.PlotOptions) =>
  figure(label, (width) =>
    Plot.plot({
      width,
      height: 220,
      marginLeft: 56,
      x: { ticks: Math.ceil(width / 120), ...x },
      y: { label: null, grid: true, nice: true, ...y },
      ...options,
    }),
  );

/** Values with their intervals, if they have one, a row each. */
export function intervals(
  label: string,
  rows: readonly { name: string; value: number; interval?: readonly number[] | null }[],
  marks: readonly Plot.Markish[] = [],
) {
  const longest = Math.max(...rows.map(({ name }) => name.length));
  const short = (name: string) => (name.length > 24 ? `${name.slice(0, 23)}…` : name);
  const ends = rows.flatMap(({ name, interval }) => (interval ? [[name, ...interval]] : []));
  return plot(label, {
    height: 46 + 32 * rows.length,
    marginLeft: 16 + 7 * Math.min(24, longest),
    x: { label: null, grid: true, nice: true },
    y: { grid: false, domain: rows.map(({ name }) => name), tickFormat: short },
    marks: [
      ...marks,
      Plot.ruleY(ends, { x1: "1", x2: "2", y: "0", stroke: ACCENT, strokeWidth: 3 }),
      Plot.dot(rows, { x: "value", y: "name", fill: ACCENT, r: 5, tip: true }),
    ],
  });
}

/** Where nothing changes. */
export const zero = Plot.ruleX([0], { stroke: SOFT });

type Metric = "loss" | "gradNorm" | "learningRate";

/** A metric over the steps, as it was behind its running mean; of held-out text the dots. */
export function curve(label: string, { points, evaluations }: RunPage["curves"], y: Metric) {
  const line = { x: "step", y, stroke: ACCENT };
  return plot(label, {
    marks: [
      Plot.lineY(points, { ...line, strokeOpacity: 0.35 }),
      Plot.lineY(points, Plot.windowY({ k: 2 * Math.floor(points.length / 50) + 1, ...line })),
      y === "loss" ? Plot.dot(evaluations, { x: "step", y, fill: "var(--other)", r: 3.5 }) : null,
      Plot.tip(points, Plot.pointerX({ x: "step", y })),
    ],
  });
}

/** The losses of each arm: their mean over seeds, and pale each seed. */
export function armCurves(label: string, curves: ArmsPage["curves"]) {
  const points = curves.flatMap(({ arm, seed, points }) =>
    points.map(([step, loss]) => ({ arm, seed: `${arm} ${seed}`, step, loss })),
  );
  const at = { x: "step", y: "loss", stroke: "arm" };
  return plot(label, {
    color: { legend: true },
    marks: [
      Plot.lineY(points, { ...at, z: "seed", strokeOpacity: 0.25 }),
      Plot.lineY(points, Plot.groupX({ y: "mean" }, { ...at, strokeWidth: 2 })),
    ],
  });
}

/** Perplexity before and after by the place of a token in its window. */
export const places = (groups: NonNullable<RunDetails["places"]>) =>
  plot("Perplexity by place in the window, tokens", {
    x: { type: "log", tickFormat: ",d", label: null },
    y: { type: "log", nice: false, ticks: 5, tickFormat: (value: number) => String(value) },
    marks: [SOFT, ACCENT].flatMap((stroke, i) => {
      const points = groups.map(({ from, to, lossNats }) => {
        return { place: Math.sqrt(from * to), perplexity: Math.exp(lossNats[i]!) };
      });
      const at = { x: "place", y: "perplexity", stroke };
      return [Plot.lineY(points, at), Plot.dot(points, { ...at, fill: stroke, r: 2, tip: i > 0 })];
    }),
  });

export function histogram(changes: readonly number[]) {
  const bins = Plot.binX({ y: "count" }, { x: Plot.identity, thresholds: 30 });
  return plot("Windows by the change of their loss, nats per token", {
    x: { label: null },
    marks: [Plot.rectY(changes, { ...bins, fill: ACCENT, tip: true }), zero],
  });
}

/** τ of every layer and head: its mean, orange above 1 and blue below; or how far tokens differ. */
export function temperatures(label: string, of: RunDetails["heads"], which: "mean" | "deviation") {
  const rest = which === "mean" ? 1 : 0;
  const all = of.flatMap(({ layer, [which]: values }) =>
    values.map((value, head) => ({ layer, head, value, from: value - rest })),
  );
  const most = Math.max(1e-9, ...all.map(({ from }) => Math.abs(from)));
  const cells = all.map(({ from, ...cell }) => {
    const color = from < 0 ? "var(--cool)" : "var(--warm)";
    return { ...cell, color, strength: 0.06 + 0.94 * (Math.abs(from) / most) };
  });
  const heads = of[0]!.mean.map((_, head) => head);
  const ticks = heads.filter((head) => head % Math.ceil(heads.length / 16) === 0);
  const at = { x: "head", y: "layer", fill: "color", fillOpacity: "strength" };
  const title = ({ layer, head, value }: (typeof cells)[number]) =>
    `layer ${layer}, head ${head}: ${value.toFixed(4)}`;
  return plot(`${label}; full colour at ${rest ? "1 ± " : ""}${most.toPrecision(2)}`, {
    height: 50 + Math.max(8, Math.min(24, 400 / of.length)) * of.length,
    marginLeft: 40,
    padding: 0.06,
    x: { ticks, tickSize: 0 },
    y: { label: "layer", tickSize: 0, grid: false },
    color: { type: "identity" },
    opacity: { type: "identity" },
    marks: [Plot.cell(cells, { ...at, title, tip: true })],
  });
}
