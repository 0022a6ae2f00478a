// `ssa convert`: a model, an adapter or a run as a folder for other programs, compared with its source.

import { type Command, InvalidArgumentError } from "commander";
import { type Precision, precisionNamed } from "../../src/core/dtype.ts";
import { type Conversion, convert, TARGETS, targetNamed } from "../../src/export/convert.ts";
import { formatBytes, formatInteger, table } from "../console.ts";
import { type CommandIo, openProgress } from "../io.ts";
import { opening } from "../models.ts";

interface ConvertFlags {
  readonly model: string;
  readonly adapter?: string;
  readonly to: string;
  readonly out: string;
  readonly dtype?: Precision;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function convertCommand(program: Command, io: CommandIo): void {
  program
    .command("convert")
    .description("export a model with its temperatures, and check what was written")
    .requiredOption("--model <model>", "model folder, run folder, Hugging Face id or embedded name")
    .requiredOption("--to <target>", TARGETS.join(", "))
    .requiredOption("--out <folder>", "folder to write")
    .option("--adapter <folder>", "temperatures to put on the model")
    .option(
      "--dtype <type>",
      "of the base's weights: f32, f16 or bf16 (default: as stored; onnx: f32)",
      dtypeNamed,
    )
    .option("--force", "replace an earlier export at --out")
    .option("--json", "print one JSON document")
    .addHelpText(
      "after",
      `
safetensors  a Hugging Face folder with the temperatures among the weights
adapter      the temperatures alone, for their base
onnx         a folder that @huggingface/transformers runs, in Node and in browsers

Example:
  $ ssa convert --model checkpoints/tiny-gpt2-moby-dick-1 --to onnx --out exported`,
    )
    .action((flags: ConvertFlags) => runConvert(flags, io));
}

async function runConvert(flags: ConvertFlags, io: CommandIo): Promise<void> {
  const target = targetNamed(flags.to); // what can be refused is refused before a download
  const progress = openProgress(io);
  const conversion = await convert({
    ...opening(io, progress),
    model: flags.model,
    adapter: flags.adapter,
    target,
    out: flags.out,
    dtype: flags.dtype,
    isForced: flags.force ?? false,
    onStage: (stage) => progress.update([stage]),
  }).finally(() => progress.done());
  const text = flags.json ? JSON.stringify(conversion, null, 2) : describe(conversion, io.columns);
  io.stdout.write(`${text}\n`);
  for (const note of conversion.notes) io.stderr.write(`${io.style.yellow("note:")} ${note}\n`);
}

function describe({ out, files, verification }: Conversion, columns: number): string {
  const { what, numValues, largest, relative } = verification;
  const deviation =
    largest === 0
      ? "equal to the source's"
      : `differ by at most ${largest.toPrecision(3)} (relative ${relative.toPrecision(3)})`;
  const listed = table(
    [],
    files.map(({ name, sizeBytes }) => [name, formatBytes(sizeBytes)]),
    columns,
  );
  return `${listed}\n\nchecked: ${formatInteger(numValues)} ${what === "logits" ? what : `values of ${what}`}, ${deviation}\nwritten: ${out}`;
}

function dtypeNamed(word: string): Precision {
  const dtype = precisionNamed(word);
  if (dtype) return dtype;
  throw new InvalidArgumentError("f32, f16 or bf16 is needed.");
}
