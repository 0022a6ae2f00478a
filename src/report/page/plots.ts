// The plots of the page. Colours are the style's variables, so that both themes and paper have their own.

import * as Plot from "@observablehq/plot";
import type { Difference } from "../../evaluate/statistics.ts";
import type { HeadTemperatures } from "../../evaluate/attention.ts";
import type { Curves, RunPage } from "../data.ts";
import { figure } from "./dom.ts";

const [ACCENT, OTHER, SOFT] = ["var(--accent)", "var(--other)", "var(--soft)"];
const [COOL, WARM] = ["var(--cool)", "var(--warm)"];
/** Of arms, told apart in both themes. */
export const SERIES = [
  "#2f7de1",
  "#e07b1a",
  "#2aa876",
  "#c4459a",
  "#8a6bd6",
  "#9a8a2c",
  "#5f7f8f",
  "#d0523f",
];
export const seriesColor = (i: number) => SERIES[i % SERIES.length]!;

const FRAME = { marginLeft: 56, marginRight: 12, height: 220 };

/** The change of a run's perplexity, or of several arms', each with its interval. */
export const changes = (
  label: string,
  colorOf: (name: string) => string,
  rows: readonly (Pick<Difference, "percent" | "interval95"> & {
    name: string;
    runs?: readonly number[];
  })[],
) =>
  figure(label, (width) =>
    Plot.plot({
      width,
      height: 46 + 34 * rows.length,
      marginLeft: 16 + 7 * Math.min(24, Math.max(...rows.map(({ name }) => name.length))),
      x: { label: "change of perplexity, %", grid: true, nice: true },
      y: {
        label: null,
        domain: rows.map(({ name }) => name),
        tickFormat: (name: string) => (name.length > 24 ? `${name.slice(0, 23)}…` : name),
      },
      marks: [
        Plot.ruleX([0], { stroke: SOFT }),
        Plot.link(
          rows.filter(({ interval95 }) => interval95),
          {
            x1: (row: Difference) => row.interval95![0],
            x2: (row: Difference) => row.interval95![1],
            y1: "name",
            y2: "name",
            stroke: (row: { name: string }) => colorOf(row.name),
            strokeWidth: 3,
          },
        ),
        Plot.dot(
          rows.flatMap(({ name, runs = [] }) => runs.map((percent) => ({ name, percent }))),
          { x: "percent", y: "name", stroke: SOFT, r: 4 },
        ),
        Plot.dot(rows, {
          x: "percent",
          y: "name",
          fill: (row: { name: string }) => colorOf(row.name),
          r: 5,
        }),
      ],
    }),
  );

/** Both perplexities with their intervals. */
export const beforeAfter = (
  rows: readonly { name: string; value: number; interval: readonly [number, number] | null }[],
) =>
  figure("Perplexity before and after, with 95 % intervals", (width) =>
    Plot.plot({
      width,
      height: 110,
      marginLeft: 56,
      x: { label: "perplexity", grid: true, nice: true },
      y: { label: null, domain: rows.map(({ name }) => name) },
      marks: [
        Plot.link(
          rows.filter(({ interval }) => interval),
          {
            x1: (row: { interval: number[] }) => row.interval[0],
            x2: (row: { interval: number[] }) => row.interval[1],
            y1: "name",
            y2: "name",
            stroke: ACCENT,
            strokeWidth: 3,
          },
        ),
        Plot.dot(rows, { x: "value", y: "name", fill: ACCENT, r: 5, tip: true }),
      ],
    }),
  );

type Point = Curves["points"][number];

/** One metric over the steps: as it was behind its running mean. */
export function curve(
  { points, evaluations }: Pick<Curves, "points" | "evaluations">,
  key: Exclude<keyof Point, "step">,
  label: string,
) {
  const k = Math.max(1, Math.round(points.length / 25));
  const isSmoothed = key !== "learningRate" && k > 1;
  const held = key === "loss" ? evaluations : [];
  return figure(label, (width) =>
    Plot.plot({
      ...FRAME,
      width,
      x: { label: "step", ticks: Math.max(3, Math.floor(width / 90)) },
      y: { label: null, grid: true, nice: true, zero: key !== "loss" },
      marks: [
        Plot.lineY(points, {
          x: "step",
          y: key,
          stroke: ACCENT,
          strokeOpacity: isSmoothed ? 0.35 : 1,
        }),
        isSmoothed
          ? Plot.lineY(
              points,
              Plot.windowY({ k }, { x: "step", y: key, stroke: ACCENT, strokeWidth: 2 }),
            )
          : null,
        Plot.lineY(held, { x: "step", y: "loss", stroke: OTHER, strokeDasharray: "4 3" }),
        Plot.dot(held, { x: "step", y: "loss", fill: OTHER, r: 3.5 }),
        Plot.tip(points, Plot.pointerX({ x: "step", y: key })),
      ],
    }),
  );
}

/** Loss over the steps of several runs, in the colours of their arms. */
export const manyCurves = (
  runs: readonly { arm: string; seed: number; points: readonly { step: number; loss: number }[] }[],
  colorOf: (arm: string) => string,
) =>
  figure("Training loss of every run, running mean, nats per token", (width) =>
    Plot.plot({
      ...FRAME,
      height: 280,
      width,
      x: { label: "step", ticks: Math.max(3, Math.floor(width / 90)) },
      y: { label: null, grid: true, nice: true },
      marks: runs.map(({ arm, points }) => {
        const k = Math.max(1, Math.round(points.length / 25));
        return Plot.lineY(
          points,
          Plot.windowY({ k }, { x: "step", y: "loss", stroke: colorOf(arm) }),
        );
      }),
    }),
  );

type Details = NonNullable<RunPage["details"]>;

/** Perplexity before and after by the place of a token in its window. */
export function places(groups: NonNullable<Details["places"]>) {
  const middle = ({ from, to }: { from: number; to: number }) => Math.sqrt(from * to);
  const lines = ["before", "after"].map((when, i) =>
    groups.map((group) => ({
      when,
      place: middle(group),
      perplexity: Math.exp(group.lossNats[i]!),
    })),
  );
  return figure("Perplexity by place in the window", (width) =>
    Plot.plot({
      ...FRAME,
      width,
      x: {
        type: "log",
        label: "place in the window, tokens",
        ticks: Math.max(3, Math.floor(width / 120)),
        tickFormat: ",d",
      },
      y: { type: "log", label: null, grid: true, ticks: 5, tickFormat: ".3~s" },
      marks: lines.flatMap((line, i) => {
        const options = { x: "place", y: "perplexity", stroke: i === 0 ? SOFT : ACCENT };
        return [
          Plot.lineY(line, { ...options, strokeWidth: 2 }),
          Plot.dot(line, { ...options, r: 2.5, fill: options.stroke, tip: i === 1 }),
        ];
      }),
    }),
  );
}

/** τ of every layer and head: its mean, orange above 1 and blue below; or how far tokens differ. */
export function temperatures(
  of: readonly HeadTemperatures[],
  which: "mean" | "deviation",
  label: string,
) {
  const rest = which === "mean" ? 1 : 0;
  const cells = of.flatMap(({ layer, [which]: values }) =>
    values.map((value, head) => ({ layer, head, value })),
  );
  const most = Math.max(1e-9, ...cells.map(({ value }) => Math.abs(value - rest)));
  const heads = [...new Set(cells.map(({ head }) => head))];
  return figure(
    `${label}; full colour at ${which === "mean" ? "1 ± " : ""}${most.toPrecision(2)}`,
    (width) => {
      const step = Math.ceil((heads.length * 22) / width);
      return Plot.plot({
        width,
        height: 50 + Math.min(24, Math.max(8, 400 / of.length)) * of.length,
        marginLeft: 40,
        padding: 0.06,
        x: { label: "head", ticks: heads.filter((head) => head % step === 0), tickSize: 0 },
        y: { label: "layer", tickSize: 0 },
        color: { type: "identity" },
        opacity: { type: "identity" },
        marks: [
          Plot.cell(cells, {
            x: "head",
            y: "layer",
            fill: ({ value }: { value: number }) => (value >= rest ? WARM : COOL),
            fillOpacity: ({ value }: { value: number }) =>
              0.06 + 0.94 * (Math.abs(value - rest) / most),
            title: (cell: (typeof cells)[number]) =>
              `layer ${cell.layer}, head ${cell.head}: ${cell.value.toFixed(4)}`,
            tip: true,
          }),
        ],
      });
    },
  );
}

export const histogram = ({ bins }: NonNullable<RunPage["changes"]>) =>
  figure("Windows by the change of their loss, nats per token", (width) =>
    Plot.plot({
      ...FRAME,
      width,
      x: { label: "change, nats per token", ticks: Math.max(3, Math.floor(width / 90)) },
      y: { label: null, grid: true },
      marks: [
        Plot.rectY(bins, {
          x1: "from",
          x2: "to",
          y: "count",
          fill: ({ from, to }: { from: number; to: number }) => (from + to < 0 ? ACCENT : OTHER),
          tip: true,
        }),
        Plot.ruleX([0], { stroke: SOFT }),
        Plot.ruleY([0]),
      ],
    }),
  );
