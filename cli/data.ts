// Data by name for every command: files and folders, embedded texts, or data sets from the hub with progress.

import { basename } from "node:path";
import { type DataFiles, describeUnread, findDataFiles } from "../src/data/readers/files.ts";
import { isDataPath } from "../src/data/readers/formats.ts";
import { EMBEDDED_DATA, embeddedData } from "../src/data/readers/embedded.ts";
import { resolveDataset } from "../src/hub/dataset.ts";
import type { HubSettings } from "../src/hub/environment.ts";
import { parseDatasetName } from "../src/hub/repo-id.ts";
import { formatBytes, formatInteger, type Progress } from "./console.ts";
import type { CommandIo } from "./io.ts";

export interface NamedData extends DataFiles {
  /** What joins rows to one text; absent where each row is a text. */
  readonly separator?: string;
  /** A split that the name itself chose. */
  readonly split?: string | undefined;
}

interface FindOptions {
  /** The splits that are needed, of those that exist; all by default. */
  readonly splits?: readonly string[];
}

const WIKITEXT = "Salesforce/wikitext";

/** The files of a data source; WikiText's rows make one text, joined as the published figures need. */
export async function findData(
  name: string,
  io: CommandIo,
  settings: HubSettings,
  { splits }: FindOptions = {},
): Promise<NamedData> {
  if (isDataPath(name)) {
    const data = await findDataFiles(name);
    const unread = describeUnread(data);
    if (unread !== undefined) io.stderr.write(`${unread}\n`);
    return data;
  }
  if (EMBEDDED_DATA.includes(name)) return embeddedData(name);
  const spec = parseDatasetName(name);
  try {
    const { files, id, config } = await resolveDataset(name, settings, {
      ...(splits && { splits }),
      onProgress: ({ file, receivedBytes, totalBytes }) =>
        io.progress.update(
          [basename(file), `${formatBytes(receivedBytes)} of ${formatBytes(totalBytes)}`],
          totalBytes > 0 ? receivedBytes / totalBytes : undefined,
        ),
    });
    return {
      name: `${id}:${config}`,
      splits: files,
      split: spec.split,
      ...(id === WIKITEXT && { separator: "\n\n" }),
    };
  } finally {
    io.progress.done();
  }
}

/** Refuses, before anything is fetched, what can be no data's name. */
export async function checkData(name: string): Promise<void> {
  if (isDataPath(name)) await findDataFiles(name);
  else if (!EMBEDDED_DATA.includes(name)) parseDatasetName(name);
}

/** Shows how far tokenizing is. */
export function tokenizing(progress: Progress): (done: { readonly tokens: number }) => void {
  return ({ tokens }) => progress.update(["tokenizing", `${formatInteger(tokens)} tokens`]);
}
