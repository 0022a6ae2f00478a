// What a run tells on stderr: a progress line and sentences for people, or JSON lines (pino) for machines.

import { pino } from "pino";
import type { RunEvent } from "../src/run/training.ts";
import { progress } from "./console.ts";
import * as format from "./format.ts";
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
  let last = "";
  return {
    event: (event) => {
      // A line per tenth of a long scoring, not per window.
      const tenth = event.kind === "scored" ? `${Math.floor((10 * event.windows) / event.of)}` : "";
      if (tenth === "" || tenth !== last) log.info(event.kind === "note" ? event.text : event);
      last = tenth;
    },
    note: (text) => log.info(text),
  };
}

function humanLog({ progress: line, now }: CommandIo): RunLog {
  let begun: { readonly at: number; readonly step: number } | undefined;
  let phase = "";
  const update = (name: string, fields: readonly string[], fraction?: number) => {
    if (name !== phase) line.done(); // the first line of each phase comes at once
    phase = name;
    line.update(fields, fraction);
  };
  return {
    note: (text) => line.line(text),
    event: (event) => {
      if (event.kind === "note") return line.line(event.text);
      if (event.kind === "saved") return;
      if (event.kind === "evaluated") {
        const perplexity = format.perplexity(Math.exp(event.lossNats));
        return line.line(`step ${event.step}: held-out perplexity ${perplexity}`);
      }
      if (event.kind === "scored") {
        const { windows, of } = event;
        const fields = [`scoring ${event.phase}`, `window ${windows} of ${of}`];
        return update(event.phase, fields, windows / of);
      }
      const { step, steps, lossNats, learningRate, tokensPerSecond } = event;
      begun ??= { at: now(), step };
      const left = ((now() - begun.at) / 1000 / (step - begun.step)) * (steps - step);
      // No bar: with one, the time left would not fit 80 columns.
      update("training", [
        `step ${step}/${steps}`,
        `loss ${lossNats.toFixed(4)}`,
        `lr ${learningRate.toExponential(1)}`,
        format.rate(tokensPerSecond),
        ...(step > begun.step ? [`${format.duration(left)} left`] : []),
      ]);
    },
  };
}
