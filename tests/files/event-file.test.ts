// Event files as others read them: CRC-32C's published vectors, the first record of a file that TensorFlow wrote, protoc
// with the fields of TensorBoard's event.proto; and a run that was stopped and went on.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { openEngine } from "../../src/engines/index.ts";
import { crc32c, framed, scalarEvent } from "../../src/files/event-file.ts";
import { readLines } from "../../src/files/json.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { smallRun, writeTokens } from "../run/small-run.ts";

const protoc = spawnSync("protoc", ["--version"]).status === 0;

const PROTO = `syntax = "proto3";
message Event {
  double wall_time = 1; int64 step = 2;
  oneof what { string file_version = 3; Summary summary = 5; SessionLog session_log = 7; }
}
message Summary { message Value { string tag = 1; oneof value { float simple_value = 2; } } repeated Value value = 1; }
message SessionLog { enum Status { NONE = 0; START = 1; STOP = 2; CHECKPOINT = 3; } Status status = 1; }
`;

async function decoded(folder: string, event: Uint8Array): Promise<string> {
  await writeFile(join(folder, "event.proto"), PROTO);
  const args = [`--proto_path=${folder}`, "--decode=Event", "event.proto"];
  const { stdout, stderr } = spawnSync("protoc", args, { input: event });
  assert.equal(String(stderr), "");
  return String(stdout);
}

/** The records of a file, their lengths and checksums checked. */
function recordsIn(file: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 0; at < file.length;) {
    const data = file.subarray(at + 12, at + 12 + Number(file.readBigUInt64LE(at)));
    const whole = file.subarray(at, (at += data.length + 16));
    assert.deepEqual(Buffer.from(framed(data)), whole);
    records.push(data);
  }
  return records;
}

test("checksums are those of RFC 3720, and a record is TensorFlow's", () => {
  const bytes = Uint8Array.from({ length: 32 }, (_, i) => i);
  const vectors: [Uint8Array, number][] = [
    [new Uint8Array(32), 0x8a9136aa],
    [new Uint8Array(32).fill(255), 0x62a8ab43],
    [bytes, 0x46dd794e],
    [bytes.toReversed(), 0x113fdb5c],
    [Buffer.from("123456789"), 0xe3069283],
  ];
  for (const [data, expected] of vectors) assert.equal(crc32c(data), expected);
  // Time 1,600,316,642 and the version: what TensorFlow begins a file with.
  const version = Buffer.from("090000803899d6d7411a0d627261696e2e4576656e743a32", "hex");
  const record = `1800000000000000a37f4b22${version.toString("hex")}124b36ab`;
  assert.equal(Buffer.from(framed(version)).toString("hex"), record);
});

test("an event is read by its fields", { skip: !protoc && "no protoc here" }, async (t) => {
  const scalars = { "train/loss": 1.5, "heldout/perplexity": 127.25 };
  const text = await decoded(await temporaryFolder(t), scalarEvent(1600316642.5, 77, scalars));
  assert.match(text, /^wall_time: 1600316642.5\nstep: 77\nsummary \{/);
  const values = [...text.matchAll(/tag: "(.*)"\s+simple_value: (.*)/g)].map((m) => [m[1], m[2]]);
  assert.deepEqual(
    values,
    Object.entries(scalars).map(([tag, value]) => [tag, String(value)]),
  );
});

test(
  "a run that is stopped goes on in a file of its own, and all of them say what metrics.jsonl says",
  { skip: !protoc && "no protoc here" },
  async (t) => {
    const engine = await openEngine("cpu", { threads: 1 });
    after(() => engine.dispose());
    const root = await temporaryFolder(t);
    const run = { engine, folder: join(root, "run"), data: await writeTokens(join(root, "data")) };
    const recipe = { tensorboard: join(root, "logs") };
    await smallRun({ ...run, recipe, stopAt: (at) => at.kind === "step" && at.step === 5 });
    const logs = join(root, "logs", "run");
    assert.equal((await readdir(logs)).length, 1);
    await smallRun({ ...run, recipe, isResumed: true });
    const names = (await readdir(logs)).sort();
    assert.equal(names.length, 2);
    // As TensorBoard does: a start drops what earlier files say of its step and later ones.
    let kept: { step: number; values: Record<string, number> }[] = [];
    await mkdir(join(root, "proto"));
    for (const name of names) {
      assert.match(name, /^events\.out\.tfevents\.\d{10}\./);
      for (const record of recordsIn(await readFile(join(logs, name)))) {
        const text = await decoded(join(root, "proto"), record);
        const step = Number(/^step: (\d+)/m.exec(text)?.[1] ?? 0);
        if (text.includes("status: START")) kept = kept.filter((event) => event.step < step);
        const pairs = [...text.matchAll(/tag: "(.*)"\s+simple_value: (.*)/g)];
        const values = Object.fromEntries(pairs.map(([, tag, value]) => [tag, Number(value)]));
        if (pairs.length > 0) kept.push({ step, values });
      }
    }
    const metrics = await readLines(join(run.folder, "metrics.jsonl"));
    assert.equal(kept.length, metrics.length);
    for (const [i, { kind, ...of }] of metrics.entries()) {
      const expected =
        kind === "step"
          ? [of["lossNats"], of["gradNorm"], of["learningRate"], of["tokensPerSecond"]]
          : [of["lossNats"], of["perplexity"]];
      assert.equal(kept[i]!.step, of["step"]);
      allClose(Object.values(kept[i]!.values), expected.map(Number), { rtol: 1e-6 });
    }
  },
);
