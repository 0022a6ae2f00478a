// A command as a record: its options, from which help, validation and the types of its flags follow.

import { type Command as Commander, Option as Flag } from "commander";
import { fromEnvironment, fromFlags, readOptions } from "../src/options/check.ts";
import { type Option, optionsOf, type Shape, type Values } from "../src/options/values.ts";
import type { CommandIo } from "./io.ts";

interface Definition<S extends Shape> {
  readonly options: S;
  /** The option that is given without its flag. */
  readonly argument?: keyof S & string;
  /** Options of a recipe: given to `run` as they were typed, for they are checked with its file. */
  readonly recipe?: readonly Option[];
  /** Printed below the options. */
  readonly examples: string;
  run(values: Values<S>, io: CommandIo, typed: Typed): Promise<void>;
}

/** Flags as they were typed, by key. */
export type Typed = Readonly<Record<string, unknown>>;

/** Gives commander's command the record's flags, and the record their checked values. */
export type Command = (target: Commander, io: CommandIo) => void;

const ENVIRONMENT = `
Environment:
  SSA_DEVICE  where to compute, unless --device says it
  SSA_CACHE   folder for tokens of texts and exported graphs (~/.cache/ssa)
  HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and others, as for Hugging Face's own programs
`;

export function defineCommand<S extends Shape>(command: Definition<S>): Command {
  return (target, io) => register(command, target, io);
}

function register<S extends Shape>(command: Definition<S>, target: Commander, io: CommandIo): void {
  const own = optionsOf(command.options);
  for (const option of own)
    if (option.key === command.argument) target.argument(`<${option.value}>`, option.description);
    else target.addOption(flagOf(option));
  for (const option of command.recipe ?? [])
    if (option.flag) target.addOption(flagOf({ ...option, isNeeded: false }));
  target
    .option("--debug", "print the stack of an error that nobody foresaw")
    .addHelpText("after", `\n${command.examples}\n${ENVIRONMENT}`)
    .exitOverride()
    .action((...given: unknown[]) => {
      const typed: Typed = {
        ...target.opts(),
        ...(command.argument && { [command.argument]: given[0] }),
      };
      const keys = own.map(({ key }) => [key, typed[key]]);
      const values = readOptions(command.options, [
        ...fromEnvironment(command.options, io.env),
        ...fromFlags(Object.fromEntries(keys) as Typed),
      ]);
      return command.run(values, io, typed);
    });
}

function flagOf({ flag, description, choices, initial, isNeeded, isList }: Option): Flag {
  const words = [description, ...(choices ? [`: ${choices.join(", ")}`] : [])];
  if (typeof initial === "number" || typeof initial === "string")
    words.push(` (default: ${initial})`);
  const made = new Flag(flag!, words.join("")).makeOptionMandatory(isNeeded);
  const collect = (value: string, before: readonly string[] = []) => [...before, value];
  return isList ? made.argParser(collect) : made;
}
