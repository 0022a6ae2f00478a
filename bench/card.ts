// What the driver says of the first NVIDIA card.

import { execFileSync } from "node:child_process";

function query(fields: string, format: string): string | null {
  try {
    const args = [`--query-gpu=${fields}`, `--format=csv,noheader${format}`, "--id=0"];
    return execFileSync("nvidia-smi", args, { encoding: "utf8", stdio: "pipe" }).trim();
  } catch {
    return null;
  }
}

/** Its name, driver and memory; null without one. */
export const cardName = () => query("name,driver_version,memory.total", "");

/** What all processes together hold of its memory, in MiB. */
export function usedMb(): number | null {
  const used = query("memory.used", ",nounits");
  return used === null ? null : Number(used);
}
