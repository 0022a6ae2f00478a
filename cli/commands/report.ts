// `ssa report`: a run, finished or not, several runs, or a comparison as one page for a browser.

import { spawn } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { UserError } from "../../src/core/errors.ts";
import { runFiles } from "../../src/files/names.ts";
import { type PageData, pageOfArms, readComparison, readRun } from "../../src/report/data.ts";
import { isPage, writePage } from "../../src/report/document.ts";
import { flag, maybe, text, texts } from "../../src/options/values.ts";
import { compareRuns } from "../../src/run/compare.ts";
import { defineCommand } from "../command.ts";
import { print } from "../io.ts";

export const command = defineCommand({
  argument: "runs",
  options: {
    runs: maybe(
      texts("run"),
      "the folder of a run or of a comparison, or those of several finished runs",
    ),
    output: maybe(
      text("file"),
      "where the page goes (default: report.html in the folder, of several here)",
    ),
    open: flag("show it in the browser"),
  },
  examples: `Examples:
  $ ssa report checkpoints/tiny-gpt2-moby-dick-1 --open
  $ ssa report checkpoints/compare
  $ ssa report checkpoints/mine-1 checkpoints/mine-2 --output both.html`,
  async run({ runs: folders = [], output, open, json }, io) {
    const [first, ...others] = folders;
    if (first === undefined)
      throw new UserError("expected the folder of a run or of a comparison, found none", {
        hint: "ssa report checkpoints/NAME",
      });
    if (output && existsSync(output) && !(statSync(output).isFile() && (await isPage(output))))
      throw new UserError(`${output} exists and is no page of ssa's, so it stays as it is`, {
        hint: "name another file, or leave --output out",
      });
    const data: PageData =
      others.length > 0
        ? await pageOfArms(folders.join(", "), await compareRuns(folders))
        : ((await readComparison(first)) ?? (await readRun(first)));
    const path = output ?? (others.length > 0 ? runFiles.page : join(first, runFiles.page));
    await writePage(path, data);
    print(io, json, { output: path }, () => [path]);
    if (!open) return;
    // In the system's browser, which goes on without this program.
    const [program, ...before] = OPENERS[process.platform] ?? ["xdg-open"];
    const words = [...before, pathToFileURL(path).href];
    const child = spawn(program, words, { detached: true, stdio: "ignore" });
    child.on("error", () => io.progress.line(`no ${program} here that opens a browser`));
    child.unref();
  },
});

const OPENERS: Readonly<Partial<Record<NodeJS.Platform, readonly [string, ...string[]]>>> = {
  darwin: ["open"],
  win32: ["cmd", "/c", "start", ""],
};
