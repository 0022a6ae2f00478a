// `ssa generate`: continues a prompt with @huggingface/transformers on the model's exported graph.

import { type Command, InvalidArgumentError } from "commander";
import { UserError } from "../../src/core/errors.ts";
import { generate, type Sampling } from "../../src/generate/generate.ts";
import { formatRate } from "../console.ts";
import { chooseProvider } from "../engine.ts";
import { cacheFolder, type CommandIo, openProgress } from "../io.ts";
import { opening } from "../models.ts";
import { count } from "./eval.ts";

interface GenerateFlags {
  readonly model: string;
  readonly adapter?: string;
  readonly prompt: string;
  readonly maxNewTokens: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed?: number;
  readonly device: string;
  readonly json?: boolean;
}

export function generateCommand(program: Command, io: CommandIo): void {
  program
    .command("generate")
    .description(
      "continue a prompt; the most probable token each time, unless sampling is asked for",
    )
    .requiredOption("--model <model>", "model folder, run folder, Hugging Face id or embedded name")
    .requiredOption("--prompt <text>", "text to continue")
    .option("--adapter <folder>", "temperatures to put on the model")
    .option("--max-new-tokens <n>", "tokens to add at most", count, 100)
    .option("--temperature <number>", "sample; above 1 more varied, below 1 less", numberIn(0, 100))
    .option("--top-k <n>", "sample from the n most probable tokens", count)
    .option("--top-p <share>", "sample from the most probable of this share", numberIn(0, 1))
    .option("--seed <n>", "makes sampling repeatable", wholeNumber)
    .option("--device <device>", "where to compute", io.env["SSA_DEVICE"] ?? "auto")
    .option("--json", "print one JSON document at the end instead of the text as it comes")
    .addHelpText(
      "after",
      `
The model's ONNX export is made at the first call and kept; \`ssa doctor\` shows where.

Example:
  $ ssa generate --model tiny-gpt2 --prompt "The nation" --temperature 0.8 --seed 1`,
    )
    .action((flags: GenerateFlags) => runGenerate(flags, io));
}

async function runGenerate(flags: GenerateFlags, io: CommandIo): Promise<void> {
  const sampling = samplingOf(flags);
  const progress = openProgress(io);
  const provider = await chooseProvider(flags.device, (line) => progress.line(line));
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  process.once("SIGINT", onSignal);
  let begun: number | undefined;
  try {
    const generation = await generate({
      ...opening(io, progress),
      model: flags.model,
      adapter: flags.adapter,
      provider,
      cacheFolder: cacheFolder(io, "exports"),
      prompt: flags.prompt,
      maxNewTokens: flags.maxNewTokens,
      ...(sampling && { sampling }),
      signal: stop.signal,
      onStage: (stage) => progress.update([stage]),
      onText: (text) => {
        if (begun === undefined) progress.done();
        begun ??= io.now();
        if (!flags.json) io.stdout.write(text);
      },
    });
    const { tokens, stop: reason } = generation;
    if (reason === "interrupted") io.exitCode = 130;
    if (flags.json) {
      const seed = sampling?.seed;
      io.stdout.write(
        `${JSON.stringify({ prompt: flags.prompt, ...generation, ...(seed !== undefined && { seed }) }, null, 2)}\n`,
      );
      return;
    }
    io.stdout.write("\n");
    if (!io.isTty) return;
    const rate = formatRate((tokens.length - 1) / ((io.now() - (begun ?? io.now())) / 1000 || 1));
    const seed = sampling ? `, seed ${sampling.seed}` : "";
    io.stderr.write(`${io.style.dim(`${tokens.length} tokens, ${rate}${seed}`)}\n`);
  } finally {
    progress.done();
    process.off("SIGINT", onSignal);
  }
}

/** Sampling where any of its options is given; a temperature of 0 is greedy. */
function samplingOf({ temperature, topK, topP, seed }: GenerateFlags): Sampling | undefined {
  const isAsked = temperature !== undefined || topK !== undefined || topP !== undefined;
  if (!isAsked || temperature === 0) {
    if (seed !== undefined || topK !== undefined || topP !== undefined)
      throw new UserError("greedy generation has no use for --seed, --top-k and --top-p", {
        hint: "sample with a --temperature above 0, --top-k or --top-p",
      });
    return undefined;
  }
  return {
    ...(temperature !== undefined && { temperature }),
    ...(topK !== undefined && { topK }),
    ...(topP !== undefined && { topP }),
    seed: seed ?? Math.floor(Math.random() * 2 ** 31),
  };
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value < 2 ** 32) return value;
  throw new InvalidArgumentError("a whole number from 0 to 4294967295 is needed.");
}

function numberIn(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() !== "" && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`a number from ${least} to ${most} is needed.`);
  };
}
