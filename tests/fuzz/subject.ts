// What a kind of input brings to the fuzzer.

import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Random } from "../../src/core/random.ts";
import type { Outcome } from "./contract.ts";

export interface Subject<Case = unknown> {
  /** An input that differs from the untouched one, from these random numbers alone. */
  readonly mutate: (random: Random) => Case | Promise<Case>;
  /** Reads it as the program does; throws a Fault where what comes out is none of what may. */
  readonly check: (input: Case) => Promise<Outcome>;
  readonly dispose?: () => Promise<void>;
}

export interface Place {
  /** An empty folder for the inputs. */
  readonly folder: string;
  /** Read as programs do, in a process or thread that can be ended, where that is slower than this one. */
  readonly isGuarded: boolean;
}

/** Makes the untouched input. */
export type Prepare = (place: Place) => Promise<Subject>;

/** Hides the type of a kind's cases. */
export function subject<Case>({ mutate, check, dispose }: Subject<Case>): Subject {
  return { mutate, check: (input) => check(input as Case), ...(dispose && { dispose }) };
}

/** Files by their path in a folder; null: not there. */
export type Files = Readonly<Record<string, Uint8Array | string | null>>;

/** Makes a folder hold these files; others that it has stay. */
export async function lay(folder: string, files: Files): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    if (content === null) await rm(path, { recursive: true, force: true });
    else {
      if (name.includes("/")) await mkdir(dirname(path), { recursive: true });
      await writeFile(path, content);
    }
  }
}
