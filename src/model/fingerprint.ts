// What tells an opened model from every other, for what is kept of it.

import { createHash } from "node:crypto";
import { modelSha256 } from "../files/safetensors.ts";
import { insertionsOf } from "../insertions/kinds.ts";
import { insertedTensors, type OpenedModel } from "./opened.ts";

/** What differs where another model would be computed: its checkpoint, all that is inserted, and its blocks. */
export async function fingerprintOf(opened: OpenedModel, spec = opened.quantized?.spec ?? null) {
  const inserted = createHash("sha256");
  for (const [kind, { insertion }] of insertionsOf(opened)) {
    inserted.update(JSON.stringify(insertion.toJson(opened.model)));
    for (const { data } of insertedTensors(kind, opened)) inserted.update(data as Uint8Array);
  }
  return {
    modelSha256: await modelSha256(opened.checkpoint),
    adapter: inserted.digest("hex"),
    blocks: JSON.stringify(spec ?? "none"),
  };
}
