// A file that is read here and there, at once, for as long as anybody holds it.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { UserError } from "../core/errors.ts";

const unheld = new FinalizationRegistry<number>(closeSync);

export class OpenFile {
  readonly path: string;
  readonly size: number;
  readonly #descriptor: number;

  constructor(path: string) {
    this.path = path;
    this.#descriptor = openSync(path, "r");
    unheld.register(this, this.#descriptor);
    this.size = fstatSync(this.#descriptor).size;
  }

  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length;) {
      // One read is at most 2 GiB on Linux.
      const request = Math.min(length - done, 2 ** 30);
      const count = readSync(this.#descriptor, bytes, done, request, offset + done);
      if (count === 0)
        throw new UserError(`${this.path} has shrunk since it was opened`, { exitCode: 1 });
      done += count;
    }
    return bytes;
  }
}
