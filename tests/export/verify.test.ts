// The checks after writing are no formality: a folder that is not its source is found out.

import assert from "node:assert/strict";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { openModel } from "../../src/model/open.ts";
import type { OpenedModel } from "../../src/model/opened.ts";
import { UserError } from "../../src/core/errors.ts";
import { convert } from "../../src/export/convert.ts";
import { writeOnnx } from "../../src/export/onnx.ts";
import { verify } from "../../src/export/verify.ts";
import { openSafetensors } from "../../src/files/safetensors.ts";
import { temporaryFolder } from "../helpers.ts";
import { fixture } from "./fixture.ts";

const { model, adapter } = fixture("llama");

function isMismatch(error: unknown): boolean {
  assert.ok(error instanceof UserError);
  assert.match(error.message, /is not the source/);
  return error.exitCode === 1;
}

/** The source with one temperature changed by a little. */
async function altered(name: RegExp): Promise<OpenedModel> {
  const source = await openModel(model, { adapter });
  const { insertion, values } = source.temperatures!;
  const key = [...values.keys()].find((key) => name.test(key))!;
  const changed = values.get(key)!.map((value) => value + 0.05);
  return { ...source, temperatures: { insertion, values: new Map(values).set(key, changed) } };
}

test("logits: one head's temperature that is off by a little", async (t) => {
  const out = join(await temporaryFolder(t), "onnx");
  await convert({ model, adapter, target: "onnx", out });
  for (const name of [/query\.position/, /value\.bias/])
    await assert.rejects(verify("onnx", out, await altered(name)), isMismatch);
  await verify("onnx", out, await openModel(model, { adapter }));
});

test("files of an export that nobody has the memory to run: a single bit", async (t) => {
  const folder = await temporaryFolder(t);
  const source = await openModel(model, { adapter });
  const readBack = await writeOnnx(folder, source, { dtype: "fp16", maxFileBytes: 5_000 });
  assert.equal(await readBack(), true);
  const file = await open(join(folder, "onnx", "model_fp16.onnx_data"), "r+");
  const { buffer } = await file.read(new Uint8Array(1), 0, 1, 5);
  await file.write(new Uint8Array([buffer[0]! ^ 1]), 0, 1, 5);
  assert.equal(await readBack(), false);
  await file.write(buffer, 0, 1, 5);
  assert.equal(await readBack(), true);
  await file.truncate((await file.stat()).size - 1);
  await file.close();
  assert.equal(await readBack(), false);
});

test("tensors: a temperature, a weight, a single bit", async (t) => {
  const folder = await temporaryFolder(t);
  const [whole, alone] = [join(folder, "whole"), join(folder, "alone")];
  await convert({ model, adapter, target: "safetensors", out: whole });
  await convert({ model, adapter, target: "adapter", out: alone });
  await assert.rejects(verify("safetensors", whole, await altered(/key\.weight/)), isMismatch);
  await assert.rejects(verify("adapter", alone, await altered(/key\.weight/)), isMismatch);

  const source = await openModel(model, { adapter });
  const info = (await openSafetensors(whole)).tensors.get("model.norm.weight")!;
  const file = await open(info.file, "r+");
  const { buffer } = await file.read(new Uint8Array(1), 0, 1, info.offset);
  await file.write(new Uint8Array([buffer[0]! ^ 1]), 0, 1, info.offset);
  await file.close();
  await assert.rejects(verify("safetensors", whole, source), isMismatch);
});
