// GGUF files of random blocks: any bytes are codes and scales; the factors in half precision are chosen, so that values
// are as weights are.

import { f32ToF16 } from "../../src/core/dtype.ts";
import { createRandom } from "../../src/core/random.ts";
import { decodeBlocks, ggmlFormats, ggmlNames } from "../../src/files/gguf-blocks.ts";
import { convert } from "./convert.ts";
import type { GgufTensor } from "./gguf.ts";

/** Where d is, what it is, and dmin behind it in d, where there is one: that many make values of both signs. */
const factors = {
  Q4_0: [0, 1e-2],
  Q5_0: [0, 5e-3],
  Q8_0: [0, 7e-4],
  Q4_K: [0, 2e-4, 7.5],
  Q5_K: [0, 1e-4, 15.5],
  Q6_K: [208, 4e-5],
} as const;
export type Quantised = keyof typeof factors;

export function randomBlocks(format: Quantised, numValues: number, seed: number, unlike = 1) {
  const random = createRandom(seed);
  const { values, bytes } = ggmlFormats[format];
  const stored = new Uint8Array((numValues / values) * bytes).map(() => 256 * random.uniform());
  const [at, d, dmin] = factors[format];
  const view = new DataView(stored.buffer);
  for (let start = at; start < stored.length; start += bytes) {
    const own = d * (0.5 + random.uniform());
    view.setUint16(start, f32ToF16(own * (dmin || random.uniform() < 0.5 ? 1 : -1)), true);
    if (dmin) view.setUint16(start + 2, f32ToF16(own * dmin * unlike), true);
  }
  return stored;
}

/**
 * Writes a model folder's names and shapes with random blocks, of the format that each matrix is given, if it is; and the
 * same values in F32.
 */
export async function writeRandomBlocks(
  folder: string,
  [path, inF32]: readonly [path: string, inF32: string],
  formatOf: (name: string) => Quantised | undefined,
): Promise<void> {
  const as = (isBlocks: boolean) => {
    let seed = 0;
    return (name: string, tensor: GgufTensor): GgufTensor => {
      const { shape } = tensor;
      const format = shape.length === 2 ? formatOf(name) : undefined;
      if (!format) return tensor;
      const data = randomBlocks(format, shape[0]! * shape[1]!, seed++);
      const { buffer } = decodeBlocks(ggmlFormats[format], data);
      return isBlocks
        ? { shape, data, type: ggmlNames.indexOf(format) }
        : { shape, data: new Uint8Array(buffer) };
    };
  };
  await convert(folder, path, {}, as(true));
  await convert(folder, inF32, {}, as(false));
}
