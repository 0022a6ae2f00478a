// `ssa convert`: a model, an adapter or a run as a folder for other programs, compared with its source.

import { existsSync } from "node:fs";
import { type Command, Option } from "commander";
import { type Conversion, convert, TARGETS, targetNamed } from "../../src/export/convert.ts";
import { EXPORT_DTYPES, type ExportDtype } from "../../src/export/weights.ts";
import { formatBytes, formatInteger, table } from "../console.ts";
import { type CommandIo, openProgress } from "../io.ts";
import { findModel, hubOptions } from "../models.ts";

interface ConvertFlags {
  readonly model: string;
  readonly adapter?: string;
  readonly to: string;
  readonly out: string;
  readonly dtype?: ExportDtype;
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
    .addOption(
      new Option("--dtype <type>", "of the base's weights (default: as stored; onnx: f32)").choices(
        EXPORT_DTYPES,
      ),
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
    ...(await findSource(flags, io)),
    target,
    out: flags.out,
    ...(flags.dtype && { dtype: flags.dtype }),
    isForced: flags.force ?? false,
    onStage: (stage) => progress.update([stage]),
  }).finally(() => progress.done());
  const text = flags.json ? JSON.stringify(conversion, null, 2) : describe(conversion, io.columns);
  io.stdout.write(`${text}\n`);
  for (const note of conversion.notes) io.stderr.write(`${io.style.yellow("note:")} ${note}\n`);
}

/** What to export: a folder of any kind, or a model by name. */
export async function findSource(
  { model, adapter }: Pick<ConvertFlags, "model" | "adapter">,
  io: CommandIo,
) {
  const settings = hubOptions(io);
  return {
    model: existsSync(model) ? model : await findModel(model, io, settings),
    ...(adapter && { adapter }),
    resolveBase: (name: string, revision?: string) =>
      findModel(revision ? `${name}@${revision}` : name, io, settings),
  };
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
