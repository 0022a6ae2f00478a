// What is free of an NVIDIA card's memory, as its driver's own tool says.

import { execFile } from "node:child_process";
import { promisify } from "node:util";

/**
 * In bytes, of the card of that number; undefined where nvidia-smi says nothing. It counts all cards, CUDA only those of
 * CUDA_VISIBLE_DEVICES.
 */
export async function cardFree(number = "0", visible = ""): Promise<number | undefined> {
  const card = visible.split(",")[Number(number)]?.trim() || number;
  const query = [`--id=${card}`, "--query-gpu=memory.free", "--format=csv,noheader,nounits"];
  const ask = promisify(execFile)("nvidia-smi", query, { timeout: 10_000 });
  const { stdout } = await ask.catch(() => ({ stdout: "" }));
  const mebibytes = /^\s*(\d+)\s*$/.exec(stdout)?.[1];
  return mebibytes === undefined ? undefined : Number(mebibytes) * 2 ** 20;
}
