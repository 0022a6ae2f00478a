// A command as a record: its options, from which help, validation and the types of its flags follow, and how it ends
// before its end.

import { type Command as Commander, Option as Flag } from "commander";
import { fromEnvironment, fromFlags, optionsOf, readOptions } from "../src/options/values.ts";
import { type Option, type Shape, shared, type Values } from "../src/options/values.ts";
import { type CommandIo, SIGNALS } from "./io.ts";
import { onRanks, type RankFlags } from "./ranks.ts";

type Json = Pick<typeof shared, "json">;

interface Definition<S extends Shape> {
  /** Besides --json, which every command has. */
  readonly options: S;
  /** The option that is given without its flag. */
  readonly argument?: keyof S & string;
  /** Options of a recipe: given to `run` as they were typed, for they are checked with its file. */
  readonly recipe?: readonly Option[];
  /** What the first signal waits for, in words; absent: it ends the command as it ends any program. */
  readonly stops?: string;
  /** Printed below the options. */
  readonly examples: string;
  run(values: Values<S & Json>, io: CommandIo, call: Call): Promise<void>;
}

export interface Call {
  /** Options of a recipe as they were typed, by key. */
  readonly typed: Readonly<Record<string, unknown>>;
  /** Aborts where the work is to stop; thrown as its reason, it is no failure. */
  readonly signal: AbortSignal;
}

/** Gives commander's command the record's flags, and the record their checked values. */
export type Command = (target: Commander, io: CommandIo) => void;

const ENVIRONMENT = `
Environment:
  SSA_DEVICE  where to compute, unless --device says it; SSA_DEVICE_MEMORY so for --device-memory
  SSA_CACHE   folder for tokens, exported graphs and GGUF models (~/.cache/ssa)
  HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and others, as for Hugging Face's own programs
`;

export const defineCommand =
  <S extends Shape>({ options: of, argument, recipe = [], ...command }: Definition<S>): Command =>
  (target, io) => {
    const options = { ...of, json: (of["json"] ?? shared.json) as Json["json"] };
    const own = optionsOf(options);
    const checkedLater = recipe.map(({ isNeeded, description: about, ...option }) => {
      return { ...option, isNeeded: false, description: isNeeded ? `${about} (needed)` : about };
    });
    // What a run cannot do without comes first.
    for (const option of [...checkedLater.filter(({ flag }) => flag), ...own]) {
      const { key, flag, short, value, description } = option;
      if (key !== argument) target.addOption(flagOf(option));
      else target.argument(option.isList ? `[${value}...]` : `<${value}>`, description);
      if (!short) continue;
      const made = new Flag(short[0], `${flag!.split(" ")[0]} ${short[1]}`);
      if (option.group) made.helpGroup(option.group);
      target.addOption(made.implies({ [key]: short[1] }));
    }
    target
      .option("--debug", "print the stack of an error that nobody foresaw")
      .addHelpText("after", `\n${command.examples}\n${ENVIRONMENT}`)
      .exitOverride()
      .action((...words: unknown[]) => {
        const typed = { ...target.opts(), ...(argument && { [argument]: words[0] }) };
        const only = (options: readonly Option[]) =>
          Object.fromEntries(options.map(({ key }) => [key, typed[key] as unknown]));
        const sources = [...fromEnvironment(options, io.env), ...fromFlags(only(own))];
        const values = readOptions(options, sources);
        const work: Work = (signal) => command.run(values, io, { typed: only(recipe), signal });
        return onRanks(io, values as RankFlags, () => stoppable(io, command.stops, work));
      });
  };

/** What a flag's value may be, for a shell that completes it; commander itself would check it too early. */
export const choicesOf = new WeakMap<Flag, readonly string[]>();

function flagOf({ flag, alias, description, choices, ...option }: Option): Flag {
  const { isNeeded, isList } = option;
  const initial = Array.isArray(option.initial) ? option.initial.join() : option.initial;
  const words = description + (choices ? `: ${choices.join(", ")}` : "");
  const isShown = typeof initial === "number" || typeof initial === "string";
  const names = [alias, flag].filter(Boolean).join(", ");
  const made = new Flag(names, isShown ? `${words} (default: ${initial})` : words);
  if (choices) choicesOf.set(made, choices);
  if (option.group) made.helpGroup(option.group);
  const collect = (value: string, before: readonly string[] = []) => [...before, value];
  return (isList ? made.argParser(collect) : made).makeOptionMandatory(isNeeded);
}

type Work = (signal: AbortSignal) => Promise<void>;

/**
 * Does work that the first signal asks to stop, `when`; its exit code is 130 then. A second one ends the process as
 * Ctrl+C does to any program, which is 130 to a shell; `process.exit` would abort it in the middle of a session's run.
 */
async function stoppable(io: CommandIo, when: string | undefined, work: Work) {
  const controller = new AbortController();
  const { signal } = controller;
  const onSignal = (name: NodeJS.Signals) => {
    if (!signal.aborted) {
      controller.abort();
      return io.progress.line(`stopping ${when}; once more to leave at once`);
    }
    // A launcher tells it again for each rank that it lost; nobody is impatient.
    if (name === "SIGUSR1") return;
    io.progress.done();
    release();
    process.kill(process.pid, "SIGINT");
  };
  const release = () => SIGNALS.forEach((name) => process.off(name, onSignal));
  if (when) SIGNALS.forEach((name) => process.on(name, onSignal));
  try {
    await work(signal);
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    io.exitCode = 130;
  } finally {
    release();
    io.progress.done();
  }
}
