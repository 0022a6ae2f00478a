// What a run tells on stderr: a progress line and sentences for people, or JSON lines (pino) for machines.

import { pino } from "pino";
import type { RunEvent } from "../src/run/training.ts";
import { formatDuration, formatPerplexity, formatRate, progress } from "./console.ts";
import type { CommandIo } from "./io.ts";

export const LOG_FORMATS = ["auto", "human", "json"] as const;

export interface RunLog {
  event(event: RunEvent): void;
  note(text: string): void;
}

/** JSON lines where they are asked for; what comes before the run, and its end, is told so too. */
export function openLog(io: CommandIo, format: (typeof LOG_FORMATS)[number]): RunLog {
  return format === "json" ? jsonLog(io) : humanLog(io);
}

function jsonLog(io: CommandIo): RunLog {
  const destination = { write: (line: string) => void io.stderr.write(line) };
  const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  const lines = { write: (line: string) => log.info(line.trimEnd()) };
  io.progress = progress(lines, { isTty: false, now: io.now });
  let scored = 0;
  return {
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
  };
}

function humanLog({ progress: line, now }: CommandIo): RunLog {
  let started: number | undefined;
  let first = 0;
  let phase = "";
  // The first line of each phase comes at once.
  const enter = (name: string) => {
    if (name !== phase) line.done();
    phase = name;
  };
  return {
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
          if (started === undefined) [started, first] = [now(), step];
          const pace = step > first ? (now() - started) / 1000 / (step - first) : undefined;
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
  };
}
