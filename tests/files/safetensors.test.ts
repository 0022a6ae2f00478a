// Reading safetensors: values of every dtype, shards, folders without weights, large files.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, open, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import {
  modelSha256,
  openSafetensors,
  readBytes,
  readFloats,
  sha256OfFile,
  streamBytes,
} from "../../src/files/safetensors.ts";
import { sharedData, skipWithout, temporaryFolder } from "../helpers.ts";
import { entry, fileBytes, float32Bytes, folderOf } from "./safetensors-files.ts";

const eight = new Uint8Array(8);

test("values of every dtype are read at unaligned offsets", async (t) => {
  const header: Record<string, unknown> = { __metadata__: { note: "µ" } };
  const parts: Uint8Array[] = [];
  let end = 0;
  const add = (name: string, dtype: string, shape: number[], data: Uint8Array) => {
    header[name] = entry(shape, end, end + data.length, dtype);
    parts.push(data);
    end += data.length;
  };
  add("one byte", "U8", [1], new Uint8Array([7]));
  add("F32", "F32", [3], float32Bytes(1, -2.5, 3e-38));
  add("F64", "F64", [1, 2], new Uint8Array(Float64Array.of(0.1, -1e300).buffer));
  add("F16", "F16", [2], new Uint8Array(Uint16Array.of(0x3c00, 0xc000).buffer));
  add("BF16", "BF16", [2], new Uint8Array(Uint16Array.of(0x3f80, 0xc000).buffer));
  add("scalar", "F32", [], float32Bytes(42));
  add("none", "F32", [0, 4], new Uint8Array());
  for (const dtype of [
    "I64",
    "U64",
    "I32",
    "U32",
    "I16",
    "U16",
    "I8",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
  ]) {
    const bytes = Number(/\d+/.exec(dtype)?.[0] ?? 8) / 8;
    add(
      dtype,
      dtype,
      [2],
      Uint8Array.from({ length: 2 * bytes }, (_, i) => i + 1),
    );
  }
  const path = join(await temporaryFolder(t), "odd name.safetensors");
  await writeFile(path, fileBytes(header, Buffer.concat(parts)));

  const { tensors, metadata, files } = await openSafetensors(path);
  assert.deepEqual(files, [path]);
  assert.deepEqual(metadata, { note: "µ" });
  const floats = async (name: string) => [...(await readFloats(tensors.get(name)!))];
  assert.deepEqual(await floats("F32"), [1, -2.5, Math.fround(3e-38)]);
  assert.deepEqual(await floats("F64"), [Math.fround(0.1), Number.NEGATIVE_INFINITY]);
  assert.deepEqual(await floats("F16"), [1, -2]);
  assert.deepEqual(await floats("BF16"), [1, -2]);
  assert.deepEqual(await floats("scalar"), [42]);
  assert.deepEqual(await floats("none"), []);
  assert.deepEqual(tensors.get("none")!.shape, [0, 4]);
  for (const [i, name] of [...tensors.keys()].entries()) {
    const info = tensors.get(name)!;
    assert.deepEqual(Buffer.from(await readBytes(info)), Buffer.from(parts[i]!), name);
    const pieces: Uint8Array[] = [];
    for await (const piece of streamBytes(info, 3)) pieces.push(piece);
    assert.deepEqual(Buffer.concat(pieces), Buffer.from(parts[i]!), name);
    if (/^(F32|F64|F16|BF16|scalar|none)$/.test(name)) continue;
    await assert.rejects(readFloats(info), (error: Error) => {
      assert.ok(error instanceof UserError);
      return error.message.includes(`tensor "${name}" is ${info.dtype}; weights must be`);
    });
  }
});

test("a tensor whose file has shrunk since it was opened is reported, not read short", async (t) => {
  const path = join(await temporaryFolder(t), "model.safetensors");
  await writeFile(path, fileBytes({ a: entry([2], 0, 8) }, eight));
  const { tensors } = await openSafetensors(path);
  const info = tensors.get("a")!;
  await truncate(path, info.offset + 5);
  await assert.rejects(readBytes(info), /tensor "a" is cut off; the file has shrunk/);
});

const shardA = fileBytes({ __metadata__: { format: "pt" }, a: entry([1], 0, 4) }, float32Bytes(1));
const shardB = fileBytes({ b: entry([1], 0, 4), c: entry([1], 4, 8) }, float32Bytes(2, 3));
const nameA = "model-00001-of-00002.safetensors";
const nameB = "model-00002-of-00002.safetensors";
const indexOf = (map: unknown) => JSON.stringify({ metadata: { total_size: 12 }, weight_map: map });

test("shards are opened through their index, symbolic links resolved", async (t) => {
  const root = await temporaryFolder(t);
  // The layout of the Hugging Face cache: links out of the folder are its normal state.
  await folderOf(join(root, "blobs"), { aaaa: shardA, bbbb: shardB });
  const folder = await folderOf(join(root, "snapshot"), {
    "model.safetensors.index.json": indexOf({ c: nameB, a: nameA, b: nameB }),
  });
  await symlink("../blobs/aaaa", join(folder, nameA));
  await symlink("../blobs/bbbb", join(folder, nameB));

  for (const path of [folder, join(folder, "model.safetensors.index.json")]) {
    const checkpoint = await openSafetensors(path);
    assert.deepEqual(checkpoint.files, [join(folder, nameA), join(folder, nameB)]);
    assert.deepEqual([...checkpoint.tensors.keys()], ["a", "b", "c"]);
    assert.deepEqual(checkpoint.metadata, { format: "pt" });
    assert.equal(checkpoint.tensors.get("c")!.file.endsWith(join("blobs", "bbbb")), true);
    assert.deepEqual([...(await readFloats(checkpoint.tensors.get("c")!))], [3]);
    const lines = [nameA, nameB].map((name, i) => {
      return `${name} ${createHash("sha256").update([shardA, shardB][i]!).digest("hex")}\n`;
    });
    const expected = createHash("sha256").update(lines.join("")).digest("hex");
    assert.equal(await modelSha256(checkpoint), expected);
  }
});

test("an index that does not fit its shards, or points out of its folder, is refused", async (t) => {
  const root = await temporaryFolder(t);
  const outside = (shard: unknown) =>
    [indexOf({ a: shard }), /tensor "a" is placed in .*, not a file of this folder/] as const;
  const cases: readonly (readonly [string, RegExp])[] = [
    ["{", /index\.json: the index is not JSON/],
    ['{"weight_map":{"a":"x","a":"y"}}', /the index holds the key "a" twice/],
    ["{}", /the index has no object weight_map/],
    ["[]", /the index has no object weight_map/],
    ...[
      "/etc/passwd",
      "C:\\a",
      "C:a",
      "\\\\host\\a",
      "../a",
      "x/../../a",
      "..\\a",
      "..",
      ".",
      "",
      "a\0b",
      3,
      null,
    ].map(outside),
    [
      indexOf({ a: nameA, b: nameA, c: nameB }),
      /holds tensor "b", but .* places it in model-00001/,
    ],
    [
      indexOf({ a: "gone.safetensors" }),
      /cannot open .*gone\.safetensors, which .*index\.json names/,
    ],
  ];
  for (const [index, sentence] of cases) {
    const folder = await folderOf(join(root, "model"), {
      [nameA]: shardA,
      [nameB]: shardB,
      "model.safetensors.index.json": index,
    });
    await assert.rejects(openSafetensors(folder), (error) => {
      assert.ok(error instanceof UserError, `${index}: ${String(error)}`);
      assert.match(error.message, sentence, index);
      return true;
    });
  }
});

test("an index may list what no shard holds, and leave out what one does: buffers come and go", async (t) => {
  const folder = await folderOf(await temporaryFolder(t), {
    [nameA]: shardA,
    [nameB]: shardB,
    "model.safetensors.index.json": indexOf({ a: nameA, b: nameB, d: nameA }),
  });
  const { tensors, absent } = await openSafetensors(folder);
  assert.deepEqual([...tensors.keys()], ["a", "b", "c"]);
  assert.deepEqual([...absent], [["d", nameA]]);
});

test("a folder without safetensors weights is refused by what it holds instead", async (t) => {
  const root = await temporaryFolder(t);
  const cases: readonly [name: string | undefined, sentence: RegExp][] = [
    ["pytorch_model.bin", /holds pickled weights \(pytorch_model\.bin\), not safetensors/],
    ["consolidated.00.pth", /holds pickled weights \(consolidated\.00\.pth\)/],
    ["model-q4_k_m.gguf", /holds quantised weights \(model-q4_k_m\.gguf\), not safetensors/],
    ["adapter_model.safetensors", /holds no model\.safetensors, but adapter_model\.safetensors/],
    ["train.bin", /holds neither model\.safetensors nor model\.safetensors\.index\.json/],
    [undefined, /holds neither model\.safetensors nor model\.safetensors\.index\.json/],
  ];
  for (const [i, [name, sentence]] of cases.entries()) {
    const folder = await folderOf(join(root, String(i)), name === undefined ? {} : { [name]: "" });
    await assert.rejects(
      openSafetensors(folder),
      (error) => error instanceof UserError && sentence.test(error.message),
    );
  }
  await mkdir(join(root, "folder", "model.safetensors"), { recursive: true });
  await assert.rejects(openSafetensors(join(root, "folder")), /model\.safetensors is not a file/);
  await assert.rejects(openSafetensors(join(root, "absent")), /cannot open .*absent: ENOENT/);
});

test("5 GB of shards open in little memory and are read past 4 GiB", async (t) => {
  const root = await temporaryFolder(t);
  const bytes = 4.5 * 2 ** 30;
  const large = { x: entry([bytes / 4 - 2], 0, bytes - 8), y: entry([2], bytes - 8, bytes) };
  const smaller = { z: entry([2 ** 29], 0, 2 ** 30, "BF16") };
  await folderOf(root, {
    [nameA]: fileBytes(large),
    [nameB]: fileBytes(smaller),
    "model.safetensors.index.json": indexOf({ x: nameA, y: nameA, z: nameB }),
  });
  const headerA = fileBytes(large).length;
  await truncate(join(root, nameB), fileBytes(smaller).length + 2 ** 30);
  const handle = await open(join(root, nameA), "r+");
  await handle.write(float32Bytes(6, 7), 0, 8, headerA + bytes - 8);
  await handle.close();

  const before = process.memoryUsage().rss;
  const { tensors } = await openSafetensors(root);
  assert.ok(process.memoryUsage().rss - before < 50e6, "memory that opening takes");
  assert.deepEqual([...(await readFloats(tensors.get("y")!))], [6, 7]);
  assert.equal(tensors.get("x")!.byteLength, bytes - 8);
  for await (const chunk of streamBytes(tensors.get("x")!)) {
    assert.equal(chunk.length, 16 * 2 ** 20);
    break; // and the file is closed
  }
});

test("a large file is hashed on a thread of its own, as OpenSSL hashes it", async (t) => {
  const path = join(await temporaryFolder(t), "large");
  await writeFile(path, "ssa");
  await truncate(path, 2 ** 27 + 5);
  let turns = 0;
  const counting = setInterval(() => turns++, 1);
  const hash = await sha256OfFile(path);
  clearInterval(counting);
  const whole = createHash("sha256")
    .update("ssa")
    .update(Buffer.alloc(2 ** 27 + 2));
  assert.equal(hash, whole.digest("hex"));
  assert.ok(turns > 20, `the main thread had ${turns} turns`);
  await assert.rejects(sha256OfFile(`${path}r`), /ENOENT/);
});

test(
  "a real model has the tensors that its config.json tells",
  { skip: skipWithout(sharedData("stories260k")) },
  async () => {
    const folder = sharedData("stories260k");
    const checkpoint = await openSafetensors(folder);
    assert.deepEqual(checkpoint.tensors.get("model.embed_tokens.weight")!.shape, [512, 64]);
    assert.equal((await readFloats(checkpoint.tensors.get("model.norm.weight")!)).length, 64);
    assert.equal(
      await modelSha256(checkpoint),
      await sha256OfFile(join(folder, "model.safetensors")),
    );
  },
);
