// `ssa convert`: a model, an adapter or a run as a folder for other programs, compared with its source.

import { styleText } from "node:util";
import { type Conversion, convert, targetNamed } from "../../src/export/convert.ts";
import { TARGETS } from "../../src/export/verify.ts";
import { temperaturesOption } from "../../src/options/schema.ts";
import {
  fileSize,
  flag,
  maybe,
  needed,
  numberFormat,
  shared,
  text,
} from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import * as format from "../../src/core/format.ts";
import { BLOCK_FORMATS } from "../../src/core/dtype.ts";
import { places, print, staging } from "../io.ts";

export const command = defineCommand({
  options: {
    model: shared.model,
    to: needed(text("target"), TARGETS.join(", ")),
    out: needed(text("folder"), "folder to write"),
    adapter: shared.adapter,
    temperatures: temperaturesOption,
    fold: flag(
      "refuse what cannot become part of the weights, so that any client runs what is written",
    ),
    dtype: maybe(
      numberFormat(BLOCK_FORMATS),
      "of the base's weights (default: as stored; onnx: fp32); q8, q4 and q4f16: onnx in blocks of integers",
    ),
    maxShardSize: maybe(fileSize(), "largest file of weights (default: 5GB; onnx: 2GB)"),
    force: flag("replace an earlier export at --out"),
    refresh: shared.refresh,
  },
  stops: "before the next part; what was there stays",
  examples: `safetensors  a Hugging Face folder with the temperatures among the weights
transformers the same with the code that Python's transformers needs for it
adapter      the temperatures, or LoRA as PEFT has it, alone, for their base
onnx         a folder that @huggingface/transformers runs, in Node and in browsers

Example:
  $ ssa convert --model checkpoints/tiny-gpt2-moby-dick-1 --to onnx --out exported`,
  async run({ to, fold, force, refresh, json, maxShardSize, ...given }, io, { signal }) {
    const target = targetNamed(to); // what can be refused is refused before a download
    const at = { ...places(io, refresh), signal };
    const how = { target, mustFold: fold, isForced: force, maxFileBytes: maxShardSize };
    const onStage = staging(io, signal);
    const conversion = await convert({ ...at, ...given, ...how, onStage });
    print(io, json, conversion, () => describe(conversion));
    for (const note of conversion.notes)
      io.stderr.write(`${styleText("yellow", "note:")} ${note}\n`);
  },
});

function describe({ out, files, verification }: Conversion) {
  const { what, numValues, largest, relative } = verification;
  const most = `${largest.toPrecision(3)} (relative ${relative.toPrecision(3)})`;
  const deviation = largest === 0 ? "equal to the source's" : `differ by at most ${most}`;
  const sizes = files.map(({ name, sizeBytes }) => [name, format.bytes(sizeBytes)] as const);
  const checked = `${format.integer(numValues)} ${what === "logits" ? what : `values of ${what}`}`;
  return [Object.fromEntries(sizes), `checked: ${checked}, ${deviation}\nwritten: ${out}`];
}
