// Malformed safetensors files: one clear sentence for every way of being wrong, and files mutated at random.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { DTYPE_BYTES, type Dtype } from "../../src/core/dtype.ts";
import { UserError } from "../../src/core/errors.ts";
import { sizeOf } from "../../src/core/shape.ts";
import { duplicateKey } from "../../src/files/safetensors-header.ts";
import {
  openSafetensors,
  readBytes,
  writeSafetensors,
  type Checkpoint,
  type TensorSource,
} from "../../src/files/safetensors.ts";
import { temporaryFolder } from "../helpers.ts";
import { entry, fileBytes } from "./safetensors-files.ts";

const eight = new Uint8Array(8);
const lengthOf = (length: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(length);
  return bytes;
};

const malformed: readonly [what: string, bytes: Uint8Array, sentence: RegExp][] = [
  ["empty", new Uint8Array(), /it is 0 bytes long, too short for the 8-byte header length/],
  ["seven bytes", new Uint8Array(7), /it is 7 bytes long, too short/],
  ["length beyond the file", fileBytes("{}").subarray(0, 9), /2 bytes long, but only 1 follow/],
  [
    "length over the limit",
    lengthOf(100_000_001n),
    /100000001 bytes long, over the limit of 100 MB/,
  ],
  [
    "length of 64 bits",
    lengthOf(2n ** 64n - 1n),
    /18446744073709551615 bytes long, over the limit/,
  ],
  ["Git LFS pointer", Buffer.from("version https://git-lfs.github.com/spec/v1"), /Git LFS pointer/],
  ["no header", fileBytes(""), /its header does not start with \{/],
  ["list", fileBytes("[]"), /its header does not start with \{/],
  ["leading space", fileBytes(" {}"), /its header does not start with \{/],
  ["cut JSON", fileBytes('{"a":'), /its header is not JSON \(/],
  ["text after JSON", fileBytes("{}x"), /its header is not JSON \(/],
  ["deep JSON", fileBytes(`{"a":${"[".repeat(1e6)}`), /its header is not JSON \(/],
  [
    "deep value",
    fileBytes(`{"a":{"dtype":${"[".repeat(1e5)}${"]".repeat(1e5)}}}`),
    /unknown dtype a value nested too deep to show/,
  ],
  ["not UTF-8", fileBytes("{}").fill(0xff, 9), /its header is not UTF-8/],
  ["duplicate tensor", fileBytes('{"a":{},"a":{}}'), /its header holds the key "a" twice/],
  ["duplicate, escaped", fileBytes('{"a":{},"\\u0061" :{}}'), /its header holds the key "a" twice/],
  ["duplicate dtype", fileBytes('{"a":{"dtype":"F32","dtype":"I32"}}'), /the key "dtype" twice/],
  ["duplicate metadata", fileBytes('{"__metadata__":{"x":"1","x":"2"}}'), /the key "x" twice/],
  [
    "metadata number",
    fileBytes({ __metadata__: { x: 1 } }),
    /__metadata__ value "x" is not a string/,
  ],
  ["metadata list", fileBytes({ __metadata__: [] }), /__metadata__ is not an object of strings/],
  ["entry null", fileBytes({ a: null }), /tensor "a": its entry is not an object/],
  ["entry list", fileBytes({ a: [] }), /tensor "a": its entry is not an object/],
  [
    "no dtype",
    fileBytes({ a: { shape: [], data_offsets: [0, 0] } }),
    /tensor "a": unknown dtype \(absent\)/,
  ],
  ["unknown dtype", fileBytes({ a: entry([1], 0, 4, "F31") }), /tensor "a": unknown dtype "F31"/],
  ["inherited dtype", fileBytes({ a: entry([1], 0, 4, "toString") }), /unknown dtype "toString"/],
  [
    "no shape",
    fileBytes({ a: { dtype: "F32", data_offsets: [0, 0] } }),
    /tensor "a": shape \(absent\) is not a list/,
  ],
  [
    "negative shape",
    fileBytes({ a: entry([-1], 0, 4) }),
    /tensor "a": shape \[-1\] is not a list of non-negative/,
  ],
  [
    "fractional shape",
    fileBytes({ a: entry([1.5], 0, 4) }),
    /tensor "a": shape \[1\.5\] is not a list/,
  ],
  ["text shape", fileBytes({ a: entry(["1"], 0, 4) }), /tensor "a": shape \["1"\] is not a list/],
  [
    "inexact shape",
    fileBytes('{"a":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,4]}}'),
    /tensor "a": shape/,
  ],
  [
    "huge shape",
    fileBytes({ a: entry([2 ** 40, 2 ** 40], 0, 8) }, eight),
    /tensor "a": shape \[.*\] is too large/,
  ],
  [
    "no offsets",
    fileBytes({ a: { dtype: "F32", shape: [] } }),
    /tensor "a": data_offsets \(absent\) are not two/,
  ],
  [
    "three offsets",
    fileBytes({ a: { ...entry([], 0, 4), data_offsets: [0, 4, 8] } }),
    /tensor "a": data_offsets/,
  ],
  [
    "negative offset",
    fileBytes({ a: entry([1], -4, 0) }),
    /tensor "a": data_offsets \[-4,0\] are not two/,
  ],
  [
    "end before begin",
    fileBytes({ a: entry([1], 8, 4) }, eight),
    /tensor "a": it ends \(4\) before it begins \(8\)/,
  ],
  [
    "out of range",
    fileBytes({ a: entry([3], 0, 12) }, eight),
    /tensor "a": it ends at byte 12 of the data, which is 8 bytes long/,
  ],
  [
    "wrong size",
    fileBytes({ a: entry([3], 0, 8) }, eight),
    /tensor "a": F32 \[3\] takes 12 bytes, but has 8/,
  ],
  [
    "half bytes",
    fileBytes({ a: entry([3], 0, 2, "F4") }, eight.subarray(0, 2)),
    /tensor "a": F4 \[3\] takes 1\.5 bytes/,
  ],
  [
    "overlap",
    fileBytes({ a: entry([2], 0, 8), b: entry([1], 4, 8) }, eight),
    /tensors "a" and "b" overlap/,
  ],
  [
    "hole",
    fileBytes({ a: entry([1], 4, 8) }, eight),
    /bytes 0 to 4 before tensor "a" belong to no tensor/,
  ],
  [
    "trailing bytes",
    fileBytes({ a: entry([1], 0, 4) }, eight),
    /4 bytes after the last tensor belong to no tensor/,
  ],
];

test("each malformed file is refused with its own sentence", async (t) => {
  const path = join(await temporaryFolder(t), "model.safetensors");
  for (const [what, bytes, sentence] of malformed) {
    await writeFile(path, bytes);
    await assert.rejects(openSafetensors(path), (error) => {
      assert.ok(error instanceof UserError, what);
      assert.ok(error.message.startsWith(path), `${what}: ${error.message}`);
      assert.match(error.message, sentence, what);
      return true;
    });
  }
});

test("duplicate keys are found in one object only, past escapes and strings that look like keys", () => {
  assert.equal(duplicateKey('{"a":{"b":1},"c":{"b":"a","d":["b","b"]}}'), undefined);
  assert.equal(duplicateKey('{"a\\"b":1,"a":"\\"a\\":","b":"{"}'), undefined);
  assert.equal(duplicateKey('{"x":[{"k":1,"l":{"k":2},"k":3}]}'), "k");
  assert.equal(duplicateKey('{"\\\\":1,"\\u005c" \n :2}'), "\\");
  assert.equal(duplicateKey('{"__proto__":1,"constructor":2}'), undefined);
});

// What a mutated file may do: be refused with a UserError, or open as what an independent reading of it finds.
async function checkReading(path: string, bytes: Uint8Array): Promise<"opened" | "refused"> {
  await writeFile(path, bytes);
  let checkpoint: Checkpoint;
  try {
    checkpoint = await openSafetensors(path);
  } catch (error) {
    assert.ok(error instanceof UserError, String(error));
    return "refused";
  }
  const start = 8 + Number(Buffer.from(bytes).readBigUInt64LE());
  const header = JSON.parse(Buffer.from(bytes.subarray(8, start)).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  delete header["__metadata__"];
  assert.deepEqual([...checkpoint.tensors.keys()].sort(), Object.keys(header).sort());
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    const info = checkpoint.tensors.get(name)!;
    assert.deepEqual([info.dtype, info.shape], [dtype, shape]);
    const [begin, end] = offsets;
    assert.ok(start + end <= bytes.length, "within the file");
    const expected = bytes.subarray(start + begin, start + end);
    assert.deepEqual(Buffer.from(await readBytes(info)), Buffer.from(expected));
  }
  return "opened";
}

const tensor = fc
  .record({
    name: fc.oneof(fc.string(), fc.constantFrom("a", "b", "__proto__", "0", "\u{1f600}")),
    dtype: fc.constantFrom(...(Object.keys(DTYPE_BYTES) as Dtype[])),
    shape: fc.array(fc.nat(3), { maxLength: 3 }),
    seed: fc.nat(255),
  })
  .map(({ name, dtype, shape, seed }): TensorSource => {
    const length = sizeOf(shape) * DTYPE_BYTES[dtype];
    return { name, dtype, shape, data: Uint8Array.from({ length }, (_, i) => seed + i) };
  });
const tensors = fc.uniqueArray(tensor, {
  selector: ({ name }) => name,
  maxLength: 5,
});

test("what is written is read, whatever the names, dtypes and shapes", async (t) => {
  const path = join(await temporaryFolder(t), "model.safetensors");
  const property = fc.asyncProperty(tensors, fc.boolean(), async (sources, hasMetadata) => {
    await writeSafetensors(path, sources, hasMetadata ? undefined : null);
    assert.equal(await checkReading(path, await readFile(path)), "opened");
    const { tensors, metadata } = await openSafetensors(path);
    assert.deepEqual(metadata, hasMetadata ? { format: "pt" } : {});
    assert.equal(tensors.size, sources.length);
    for (const { name, dtype, shape, data } of sources) {
      const info = tensors.get(name)!;
      assert.deepEqual([info.dtype, info.shape], [dtype, shape]);
      assert.equal(info.offset % DTYPE_BYTES[dtype], 0, "aligned");
      assert.deepEqual(await readBytes(info), data);
    }
  });
  await fc.assert(property, { numRuns: 100 });
});

// One change to the bytes of a file: anywhere, or aimed at the numbers, braces and quotes of the header.
const mutation = fc.oneof(
  fc.record({ kind: fc.constant("flip" as const), at: fc.nat(), value: fc.nat(255) }),
  fc.record({ kind: fc.constant("cut" as const), at: fc.nat(), value: fc.nat(40) }),
  fc.record({ kind: fc.constant("insert" as const), at: fc.nat(), value: fc.nat(255) }),
  fc.record({ kind: fc.constant("header" as const), at: fc.nat(), value: fc.nat(255) }),
  fc.record({
    kind: fc.constant("number" as const),
    at: fc.nat(),
    value: fc.integer({ min: -9, max: 99 }),
  }),
);

function mutate(
  bytes: Buffer,
  { kind, at, value }: { kind: string; at: number; value: number },
): Buffer {
  const place = at % bytes.length;
  const byte = Buffer.from([value & 0xff]);
  const headerEnd = Math.min(bytes.length, 8 + Number(bytes.readBigUInt64LE() & 0xffffn));
  switch (kind) {
    case "flip":
      return Buffer.concat([bytes.subarray(0, place), byte, bytes.subarray(place + 1)]);
    case "cut":
      return Buffer.concat([bytes.subarray(0, place), bytes.subarray(place + value)]);
    case "insert":
      return Buffer.concat([bytes.subarray(0, place), byte, bytes.subarray(place)]);
    case "header": {
      const mutated = Buffer.from(bytes);
      mutated[Math.min(8 + (at % Math.max(1, headerEnd - 8)), bytes.length - 1)] =
        '{}[]":,0189-.e \\'.charCodeAt(value % 16);
      return mutated;
    }
    default: {
      // The header's length follows, so that the mutation reaches the checks behind the parser.
      let numbers = 0;
      const text = bytes.subarray(8, headerEnd).toString("latin1");
      const count = text.match(/\b\d+\b/g)?.length ?? 1;
      const edited = text.replace(/\b\d+\b/g, (old) =>
        numbers++ === at % count ? String(value) : old,
      );
      return Buffer.from(
        fileBytes(Buffer.from(edited, "latin1").toString(), bytes.subarray(headerEnd)),
      );
    }
  }
}

test("a mutated file is refused, or opens as what it says: no crash, no read out of range, no wrong tensor", async (t) => {
  const path = join(await temporaryFolder(t), "model.safetensors");
  const outcomes = { opened: 0, refused: 0 };
  const mutations = fc.array(mutation, { minLength: 1, maxLength: 3 });
  const property = fc.asyncProperty(tensors, mutations, async (sources, changes) => {
    await writeSafetensors(path, sources);
    let bytes: Buffer = await readFile(path);
    for (const change of changes) if (bytes.length >= 8) bytes = mutate(bytes, change);
    outcomes[await checkReading(path, bytes)]++;
  });
  await fc.assert(property, { numRuns: 1000 });
  assert.ok(outcomes.opened > 20 && outcomes.refused > 200, JSON.stringify(outcomes));
});
