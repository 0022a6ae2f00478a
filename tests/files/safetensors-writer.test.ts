// Writing safetensors: against the files of the reference writer, the npm reader, and the rules of shards.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import {
  openSafetensors,
  readBytes,
  readFloats,
  sha256OfFile,
  streamBytes,
  writeSafetensors,
  writeSharded,
  type TensorSource,
} from "../../src/files/safetensors.ts";
import type { Dtype } from "../../src/core/dtype.ts";
import { sharedData, skipWithout, temporaryFolder } from "../helpers.ts";
import { float32Bytes } from "./safetensors-files.ts";

const floats = (name: string, ...values: number[]): TensorSource => {
  return { name, dtype: "F32", shape: [values.length], data: float32Bytes(...values) };
};

test("the bytes of a file: large dtypes first, then names; header padded to 8; metadata as told", async (t) => {
  const path = join(await temporaryFolder(t), "x.safetensors");
  await writeSafetensors(path, [
    { name: "z", dtype: "U8", shape: [], data: new Uint8Array([9]) },
    floats("10", 2),
    floats("a", 1),
    { name: "half", dtype: "F16", shape: [1, 1], data: new Uint8Array([0, 0x3c]) },
  ]);
  const bytes = await readFile(path);
  const headerLength = Number(bytes.readBigUInt64LE());
  assert.equal(headerLength % 8, 0);
  const header = bytes.subarray(8, 8 + headerLength).toString();
  assert.equal(
    header.trimEnd(),
    '{"__metadata__":{"format":"pt"},' +
      '"10":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' +
      '"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},' +
      '"half":{"dtype":"F16","shape":[1,1],"data_offsets":[8,10]},' +
      '"z":{"dtype":"U8","shape":[],"data_offsets":[10,11]}}',
  );
  const data = [...float32Bytes(2, 1), 0, 0x3c, 9];
  assert.deepEqual([...bytes.subarray(8 + headerLength)], data);

  await writeSafetensors(path, [], null);
  assert.deepEqual(
    [...(await readFile(path))],
    [8, 0, 0, 0, 0, 0, 0, 0, ...Buffer.from("{}      ")],
  );
  await writeSafetensors(path, [], { format: "pt", base: '"µ"' });
  assert.deepEqual((await openSafetensors(path)).metadata, { format: "pt", base: '"µ"' });
});

for (const model of ["stories260k", "slm4096", "gpt-nano-sort"]) {
  const original = sharedData(model, "model.safetensors");
  test(
    `${model}, read and written again, is the reference writer's file to the byte`,
    { skip: skipWithout(original) },
    async (t) => {
      const path = join(await temporaryFolder(t), "model.safetensors");
      const { tensors, metadata } = await openSafetensors(original);
      const sources = [...tensors.values()].reverse().map((info): TensorSource => {
        return {
          name: info.name,
          dtype: info.dtype as Dtype,
          shape: info.shape,
          data: () => streamBytes(info, 1000),
        };
      });
      await writeSafetensors(path, sources, metadata);
      assert.equal(await sha256OfFile(path), await sha256OfFile(original));
    },
  );
}

test("the npm package safetensors reads what is written without metadata", async (t) => {
  const path = join(await temporaryFolder(t), "x.safetensors");
  await writeSafetensors(path, [floats("b", 1, 2), floats("a", 3)], null);
  const { SafeTensor } = createRequire(import.meta.url)("safetensors") as {
    SafeTensor: new (file: Uint8Array) => {
      metadata: Map<string, { dtype: string; shape: number[] }>;
      getTensor(name: string): Uint8Array;
    };
  };
  const read = new SafeTensor(new Uint8Array(await readFile(path)));
  assert.deepEqual([...read.metadata.keys()], ["a", "b"]);
  assert.deepEqual(read.metadata.get("b")!.shape, [2]);
  assert.deepEqual([...read.getTensor("a")], [...float32Bytes(3)]);
  assert.deepEqual([...read.getTensor("b")], [...float32Bytes(1, 2)]);
});

/** A source that fails or ends early leaves the old file and nothing else. */
async function checkUntouched(
  t: TestContext,
  source: TensorSource,
  message: RegExp,
): Promise<void> {
  const folder = await temporaryFolder(t);
  const path = join(folder, "x.safetensors");
  await writeSafetensors(path, [floats("a", 1)]);
  const before = await readFile(path);
  await assert.rejects(writeSafetensors(path, [source]), message);
  assert.deepEqual(await readFile(path), before);
  assert.deepEqual(await readdir(folder), ["x.safetensors"]);
}

test("a write that fails leaves the old file and nothing beside it", async (t) => {
  const stream = (data: TensorSource["data"]): TensorSource => ({
    name: "a",
    dtype: "F32",
    shape: [3],
    data,
  });
  await checkUntouched(t, stream(new Uint8Array(11)), /internal: "a" gave 11 bytes, 12 expected/);
  const short = async function* () {
    yield float32Bytes(1, 2);
  };
  await checkUntouched(t, stream(short), /internal: "a" gave 8 bytes, 12 expected/);
  const full = async function* () {
    yield float32Bytes(1);
    throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  };
  await checkUntouched(t, stream(full), /cannot write .*x\.safetensors: the disk is full \(ENOSPC/);
});

test("names given twice or reserved are the program's mistake", async (t) => {
  const path = join(await temporaryFolder(t), "x.safetensors");
  await assert.rejects(
    writeSafetensors(path, [floats("a", 1), floats("a", 2)]),
    /internal: two tensors/,
  );
  await assert.rejects(writeSafetensors(path, [floats("__metadata__", 1)]), /internal/);
});

test("shards are as full as they may be, indexed, and read back", async (t) => {
  const folder = await temporaryFolder(t);
  const sources = [floats("c", 1, 2), floats("a", 3), floats("big", 4, 5, 6, 7), floats("b", 8)];
  await writeSharded(folder, sources, { maxShardBytes: 12 });
  const names = [1, 2, 3].map((i) => `model-0000${i}-of-00003.safetensors`);
  const index = "model.safetensors.index.json";
  assert.deepEqual((await readdir(folder)).sort(), [...names, index]);
  assert.deepEqual(JSON.parse(await readFile(join(folder, index), "utf8")), {
    metadata: { total_size: 32 },
    weight_map: { a: names[0], b: names[2], big: names[1], c: names[0] },
  });
  const checkpoint = await openSafetensors(folder);
  assert.deepEqual([...(await readFloats(checkpoint.tensors.get("big")!))], [4, 5, 6, 7]);
  assert.equal(checkpoint.tensors.size, 4);
  assert.deepEqual(checkpoint.metadata, { format: "pt" });
});

test("weights that fit one file get one file and no index", async (t) => {
  const folder = await temporaryFolder(t);
  await writeSharded(folder, [floats("a", 1), floats("b", 2)], { metadata: null });
  assert.deepEqual(await readdir(folder), ["model.safetensors"]);
  const { tensors, metadata } = await openSafetensors(folder);
  assert.deepEqual(metadata, {});
  assert.deepEqual(await readBytes(tensors.get("b")!), float32Bytes(2));
});
