// `ssa convert`: a model, an adapter or a run as a folder for other programs, compared with its source.

import { type Conversion, convert, targetNamed } from "../../src/export/convert.ts";
import { TARGETS } from "../../src/export/verify.ts";
import { shared } from "../../src/options/shared.ts";
import { flag, maybe, needed, numberFormat, text } from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import { formatBytes, formatInteger, table } from "../console.ts";
import { print } from "../io.ts";
import { opening } from "../models.ts";
import { stoppable } from "../stop.ts";

export const command = defineCommand({
  options: {
    model: shared.model,
    to: needed(text("target"), TARGETS.join(", ")),
    out: needed(text("folder"), "folder to write"),
    adapter: shared.adapter,
    dtype: maybe(numberFormat(), "of the base's weights (default: as stored; onnx: fp32)"),
    force: flag("replace an earlier export at --out"),
    json: shared.json,
  },
  examples: `safetensors  a Hugging Face folder with the temperatures among the weights
adapter      the temperatures alone, for their base
onnx         a folder that @huggingface/transformers runs, in Node and in browsers

Example:
  $ ssa convert --model checkpoints/tiny-gpt2-moby-dick-1 --to onnx --out exported`,
  async run({ to, out, dtype, force, json, ...named }, io) {
    const target = targetNamed(to); // what can be refused is refused before a download
    await stoppable(io, "before the next part; what was there stays", async (signal) => {
      const conversion = await convert({
        ...opening(io),
        ...named,
        target,
        out,
        dtype,
        isForced: force,
        onStage: (stage) => {
          signal.throwIfAborted();
          io.progress.update([stage]);
        },
      });
      io.progress.done();
      print(io, json, conversion, () => describe(conversion, io.columns));
      for (const note of conversion.notes) io.stderr.write(`${io.style.yellow("note:")} ${note}\n`);
    });
  },
});

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
