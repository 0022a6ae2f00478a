// `npm run size`: lines per file and in all. The target is information, not a gate.
import { sourceFiles } from "./source-files.ts";

const targetLines = 6000;
const files = sourceFiles("src", "cli");
const total = files.reduce((sum, file) => sum + file.numLines, 0);
const sizes = files.map((file) => file.numLines).sort((a, b) => a - b);

for (const { path, numLines } of files) console.log(`${String(numLines).padStart(6)}  ${path}`);
console.log(
  `${String(total).padStart(6)}  lines in ${files.length} files (target: under ${targetLines})`,
);
console.log(`${String(sizes[sizes.length >> 1] ?? 0).padStart(6)}  lines in the median file`);
