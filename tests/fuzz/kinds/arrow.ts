// Arrow files of pyarrow's. Their buffers carry no checksums, so a changed byte may be another text: it has to end.

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readArrow, recordBatches } from "../../../src/data/readers/arrow.ts";
import type { Row } from "../../../src/data/readers/rows.ts";
import { expect, reading } from "../contract.ts";
import { mutateBytes, pick } from "../mutate.ts";
import { lay, type Prepare, subject } from "../subject.ts";

const fixtures = join(import.meta.dirname, "../../fixtures/arrow");

export const arrow: Prepare = async ({ folder, isGuarded }) => {
  const path = join(folder, "data.arrow");
  const rows = async (isHere = !isGuarded) => {
    const texts: unknown[] = [];
    const add = ({ value }: Pick<Row, "value">) => texts.push((value as { text: unknown }).text);
    if (isHere) for await (const batch of recordBatches([path, {}])) batch.forEach(add);
    else for await (const row of readArrow(path, {})) add(row);
    return texts;
  };
  const bases: { readonly bytes: Buffer; readonly rows: string }[] = [];
  const names = (await readdir(fixtures)).filter((name) =>
    /^(?!version1|long|messages).*\./.test(name),
  );
  for (const name of names) {
    const bytes = await readFile(join(fixtures, name));
    await lay(folder, { "data.arrow": bytes });
    bases.push({ bytes, rows: JSON.stringify(await rows(true)) });
  }
  return subject<(typeof bases)[number]>({
    mutate: (random) => {
      const base = pick(random, bases);
      return { ...base, bytes: mutateBytes(base.bytes, random) };
    },
    check: async (input) => {
      await lay(folder, { "data.arrow": input.bytes });
      const found = await reading([path], () => rows());
      if ("refusal" in found) return "refused";
      expect(
        found.value.every((text) => text === null || typeof text === "string"),
        () => "a row is no text",
      );
      return JSON.stringify(found.value) === input.rows ? "same" : "other";
    },
  });
};
