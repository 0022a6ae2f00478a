// `ssa push`: a model or an adapter to the hub, with its card.

import { push } from "../../src/export/push.ts";
import type { Pushed } from "../../src/hub/push.ts";
import { flag, maybe, needed, preset, text } from "../../src/options/values.ts";
import { defineCommand } from "../command.ts";
import type { Section } from "../console.ts";
import * as format from "../../src/core/format.ts";
import { places, print } from "../io.ts";

export const command = defineCommand({
  argument: "folder",
  options: {
    folder: needed(text("folder"), "a run, or the folder of a model, an adapter or an export"),
    repo: needed(text("owner/name"), "repository on the hub, made where it is missing"),
    private: flag("make it a private one; one that is public already is refused"),
    dryRun: flag("list the files, and what would be sent; send nothing"),
    message: maybe(text("text"), "of the commit"),
    revision: preset(text("branch"), "main", "branch, made where it is missing"),
  },
  stops: "now; what has arrived is not sent again",
  examples: `Examples:
  $ ssa push checkpoints/gpt2-wikitext-1 --repo me/gpt2-wikitext --dry-run
  $ ssa push exported --repo me/gpt2-wikitext --private`,
  async run({ folder, private: isPrivate, dryRun, json, ...given }, io, { signal }) {
    const how = { ...given, isPrivate, isDryRun: dryRun };
    const pushed = await push(folder, { ...places(io), signal }, how);
    print(io, json, pushed, () => describe(pushed));
  },
});

function describe({ files, sentBytes, isDryRun, commit, ...to }: Pushed): Section[] {
  const rows = files.map(({ name, sizeBytes, state }) => [name, format.bytes(sizeBytes), state]);
  const numSent = files.filter(({ state }) => state !== "unchanged").length;
  const amount = `${format.counted(numSent, "file")}, ${format.bytes(sentBytes)}`;
  const where = `${to.url}${to.branch === "main" ? "" : `/tree/${to.branch}`}`;
  const done = commit ? `sent: ${amount}` : "nothing to send: all is there";
  const last = isDryRun ? `would be sent: ${amount}` : done;
  return [[["file", "size", "on the hub"], rows], `${last}\n${where}`];
}
