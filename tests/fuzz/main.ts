// `npm run fuzz -- KIND [--seed N] [--count M]`: KIND is one of the table, or all. `--index I` repeats one case.

import { parseArgs } from "node:util";
import { fuzz, type FoundFault } from "./fuzz.ts";
import { type Kind, KINDS } from "./kinds/index.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: "string", default: "1" },
    count: { type: "string", default: "1000" },
    index: { type: "string" },
  },
});
const [word = "all"] = positionals;
if (word !== "all" && !KINDS.includes(word as Kind)) {
  console.error(`no kind ${word}: all or one of ${KINDS.join(", ")}`);
  process.exit(2);
}
const seed = Number(values.seed);
const index = values.index === undefined ? undefined : Number(values.index);
const count = index === undefined ? Number(values.count) : 1;
const shownFaults = 20;

console.log(
  "kind         seed    cases     same    other  refused  wrong  hang  stack  memory  seconds",
);
for (const kind of word === "all" ? KINDS : [word as Kind]) {
  let found = 0;
  const onFault = ({ index, what, message }: FoundFault) => {
    process.exitCode = 1;
    if (found++ < shownFaults)
      console.log(`${kind} --seed ${seed} --index ${index}: ${what}: ${message.slice(0, 3000)}`);
  };
  const onProgress = (done: number) =>
    process.stderr.isTTY && process.stderr.write(`${kind} ${done}/${count}\r`);
  const tally = await fuzz(kind, { seed, count, first: index ?? 0, onFault, onProgress });
  const { same, other, refused, wrong, hang, stack, memory, seconds } = tally;
  const columns = [
    seed,
    count,
    same,
    other,
    refused,
    wrong,
    hang,
    stack,
    memory,
    seconds.toFixed(0),
  ];
  const widths = [6, 8, 8, 8, 8, 6, 5, 6, 7, 8];
  const cells = columns.map((column, i) => String(column).padStart(widths[i]!));
  console.log(`${kind.padEnd(11)}${cells.join(" ")}`);
}
