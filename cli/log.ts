// What a run tells on stderr: a progress line and sentences for people, or JSON lines (pino) for machines.

import { pino } from "pino";
import type { RunEvent } from "../src/run/finetune.ts";
import {
  formatDuration,
  formatPerplexity,
  formatRate,
  progress,
  type Progress,
} from "./console.ts";
import { type CommandIo, openProgress } from "./io.ts";

export type LogFormat = "auto" | "human" | "json";

export interface RunLog {
  /** Of what comes before the run: downloads, tokenizing. */
  readonly progress: Progress;
  event(event: RunEvent): void;
  note(text: string): void;
  done(): void;
}

/** `auto` is human-readable on a terminal and JSON lines elsewhere. */
export function openLog(io: CommandIo, format: LogFormat): RunLog {
  return format === "json" || (format === "auto" && !io.isTty) ? jsonLog(io) : humanLog(io);
}

function jsonLog({ stderr, now }: CommandIo): RunLog {
  const destination = { write: (line: string) => void stderr.write(line) };
  const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  const lines = { write: (line: string) => log.info(line.trimEnd()) };
  let scored = 0;
  return {
    progress: progress(lines, { isTty: false, now }),
    event: (event) => {
      if (event.kind === "note") log.info(event.text);
      // A line per tenth of a long scoring, not per window.
      else if (event.kind !== "scored") log.info(event);
      else if (event.windows === event.of || event.windows >= scored + event.of / 10) {
        scored = event.windows === event.of ? 0 : event.windows;
        log.info(event);
      }
    },
    note: (text) => log.info(text),
    done: () => undefined,
  };
}

function humanLog(io: CommandIo): RunLog {
  const line = openProgress(io);
  let started: number | undefined;
  let first = 0;
  let phase = "";
  // The first line of each phase comes at once.
  const enter = (name: string) => {
    if (name !== phase) line.done();
    phase = name;
  };
  return {
    progress: line,
    event: (event) => {
      switch (event.kind) {
        case "note":
          return line.line(event.text);
        case "scored":
          enter(event.phase);
          return line.update(
            [`scoring ${event.phase}`, `window ${event.windows} of ${event.of}`],
            event.windows / event.of,
          );
        case "evaluated":
          return line.line(
            `step ${event.step}: held-out perplexity ${formatPerplexity(Math.exp(event.lossNats))}`,
          );
        case "saved":
          return undefined;
        case "step": {
          enter("training");
          const { step, steps, lossNats, learningRate, tokensPerSecond } = event;
          if (started === undefined) [started, first] = [io.now(), step];
          const pace = step > first ? (io.now() - started) / 1000 / (step - first) : undefined;
          const left = pace === undefined ? [] : [`${formatDuration(pace * (steps - step))} left`];
          const fields = [
            `step ${step}/${steps}`,
            `loss ${lossNats.toFixed(4)}`,
            `lr ${learningRate.toExponential(1)}`,
            formatRate(tokensPerSecond),
          ];
          // No bar: with one, the time left would not fit 80 columns.
          return line.update([...fields, ...left]);
        }
      }
    },
    note: (text) => line.line(text),
    done: () => line.done(),
  };
}
