// Folders in and out: safetensors and adapters keep every value, nothing half-written stays, mistakes are refused.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openModel } from "../../src/model/open.ts";
import { convert, targetNamed } from "../../src/export/convert.ts";
import { openSafetensors, readBytes } from "../../src/files/safetensors.ts";
import { sharedData, skipWithout, temporaryFolder } from "../helpers.ts";
import { architectures, fixture, openGreedy, refused, rewrite } from "./fixture.ts";

for (const architecture of architectures)
  test(`${architecture}: the safetensors folder is the same model, bit for bit`, async (t) => {
    const source = fixture(architecture);
    const out = join(await temporaryFolder(t), "folder");
    const { verification } = await convert({ ...source, target: "safetensors", out });
    assert.equal(verification.largest, 0);

    const before = await openGreedy(await openModel(source.model, source), 8);
    const after = await openGreedy(await openModel(out), 8);
    t.after(async () => {
      await before.dispose();
      await after.dispose();
    });
    const ids = [5, 2, 8, 1, 9, 3, 4, 7];
    assert.deepEqual(await after.logits(ids), await before.logits(ids));

    const { metadata } = await openSafetensors(out);
    assert.equal(metadata["format"], "pt");
    assert.match(metadata["ssa"]!, /ignores them.*runs the base model/);
    assert.match(await readFile(join(out, "README.md"), "utf8"), /\*\*Warning\.\*\*.*base model/s);
  });

for (const dtype of ["fp16", "bf16"] as const)
  test(`${dtype}: base weights are rounded, temperatures stay F32, the config says so`, async (t) => {
    const source = fixture("llama");
    const out = join(await temporaryFolder(t), dtype);
    await convert({ ...source, target: "safetensors", out, dtype });
    const { tensors } = await openSafetensors(out);
    for (const { name, dtype: stored } of tensors.values())
      assert.equal(
        stored,
        name.includes(".ssa.") ? "F32" : { fp16: "F16", bf16: "BF16" }[dtype],
        name,
      );
    const config = JSON.parse(await readFile(join(out, "config.json"), "utf8")) as object;
    const expected = { fp16: "float16", bf16: "bfloat16" }[dtype];
    assert.equal(Reflect.get(config, "torch_dtype"), expected);
    const opened = await openModel(out);
    const { temperatures } = await openModel(source.model, source);
    assert.deepEqual(opened.temperatures!.values, temperatures!.values);
    assert.deepEqual(opened.temperatures!.insertion.spec, temperatures!.insertion.spec);
  });

test("shards of a given size with their index", async (t) => {
  const out = join(await temporaryFolder(t), "shards");
  const options = { ...fixture("gpt2"), target: "safetensors", out } as const;
  const { files } = await convert({ ...options, maxFileBytes: 20_000 });
  const shards = files.filter(({ name }) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name));
  assert.ok(shards.length > 1);
  assert.ok(files.some(({ name }) => name === "model.safetensors.index.json"));
});

test("a half-precision source stays as it is stored", async (t) => {
  const folder = await temporaryFolder(t);
  const half = join(folder, "half");
  await convert({ ...fixture("llama"), target: "safetensors", out: half, dtype: "bf16" });
  const again = join(folder, "again");
  await convert({ model: half, target: "safetensors", out: again });
  const { tensors } = await openSafetensors(again);
  for (const [name, info] of (await openSafetensors(half)).tensors)
    assert.deepEqual(await readBytes(tensors.get(name)!), await readBytes(info), name);
});

test(
  "what rounding does to stories260k is measured",
  {
    skip: skipWithout(sharedData("stories260k")),
  },
  async (t) => {
    const folder = await temporaryFolder(t);
    for (const dtype of ["fp16", "bf16"] as const) {
      const { verification } = await convert({
        model: sharedData("stories260k"),
        target: "safetensors",
        out: join(folder, dtype),
        dtype,
      });
      t.diagnostic(
        `${dtype}: weights differ by ${verification.largest}, relative ${verification.relative}`,
      );
      // Half a unit in the last place of 11 and 8 significant bits, evenly spread: 2^-p / √3 or less.
      const precision = { fp16: 11, bf16: 8 }[dtype];
      assert.ok(verification.relative > 0 && verification.relative < 2 ** -precision);
    }
  },
);

test("targets and formats that cannot be are refused with the reason", async (t) => {
  assert.throws(() => targetNamed("gguf"), refused(/temperature that depends on the token/));
  assert.throws(() => targetNamed("safetensor"), refused(/did you mean "safetensors"/));
  const out = join(await temporaryFolder(t), "out");
  const source = { ...fixture("llama"), out };
  await assert.rejects(convert({ ...source, target: "onnx", dtype: "bf16" }), refused(/bf16/));
  await assert.rejects(
    convert({ ...source, target: "adapter", dtype: "fp16" }),
    refused(/always f32/),
  );
  await assert.rejects(convert({ ...source, model: out, target: "onnx" }), refused(/no folder/));
  assert.deepEqual(await readdir(dirname(out)), []);
});

test("an existing folder stays, unless it is an earlier export and --force is given", async (t) => {
  const folder = await temporaryFolder(t);
  const out = join(folder, "out");
  const options = { ...fixture("llama"), target: "adapter", out } as const;
  await convert(options);
  await assert.rejects(convert(options), refused(/exists already[^]*--force/));
  await writeFile(join(out, "model.safetensors"), ""); // of an export to another target
  await mkdir(join(out, "run1"));
  await assert.rejects(
    convert({ ...options, isForced: true }),
    refused(/also holds run1, which `ssa convert` did not write/),
  );
  await rm(join(out, "run1"), { recursive: true });
  await convert({ ...options, isForced: true });
  assert.ok(!(await readdir(out)).includes("model.safetensors"));
  assert.deepEqual(await readdir(folder), ["out"]);

  const foreign = join(folder, "foreign");
  await mkdir(foreign);
  await writeFile(join(foreign, "thesis.txt"), "");
  await assert.rejects(
    convert({ ...options, out: foreign, isForced: true }),
    refused(/was not written by/),
  );
  await convert({ ...options, target: "safetensors", out: join(folder, "model") });
  const itself = { model: join(folder, "model"), target: "onnx", isForced: true } as const;
  await assert.rejects(convert({ ...itself, out: itself.model }), refused(/is to be converted/));
  await assert.rejects(convert({ ...itself, out: folder }), refused(/is to be converted/));
});

test("a weight that is no number is the source's fault, not the export's", async (t) => {
  const folder = await temporaryFolder(t);
  const model = join(folder, "model");
  await rewrite(fixture("llama").model, model, (values) => values.fill(NaN, 0, 1));
  await assert.rejects(
    convert({ model, target: "onnx", out: join(folder, "out") }),
    refused(/a logit of .*model is NaN\nare the model's weights intact/, 1),
  );
});

test("a failure leaves nothing: a weight beyond f16", async (t) => {
  const folder = await temporaryFolder(t);
  const model = join(folder, "model");
  await rewrite(fixture("llama").model, model, (values) => values.fill(7e4, 0, 1));
  for (const target of ["safetensors", "onnx"] as const)
    await assert.rejects(
      convert({ model, target, out: join(folder, "out"), dtype: "fp16" }),
      refused(/f16 ends at 65504/, 1),
    );
  assert.deepEqual(await readdir(folder), ["model"]);
});

test("a killed conversion leaves no folder that looks finished; the next one cleans up", async (t) => {
  const folder = await temporaryFolder(t);
  const out = join(folder, "out");
  await killedConversion(t, out);
  const left = await readdir(folder);
  assert.equal(left.length, 1);
  assert.match(left[0]!, /^out\.tmp-\d+-[0-9a-f]{16}$/);
  await convert({ ...fixture("llama"), target: "safetensors", out });
  assert.deepEqual(await readdir(folder), ["out"]);
});

/** Runs a conversion in a process that is killed when all is written but nothing checked. */
async function killedConversion(t: TestContext, out: string): Promise<void> {
  const script = join(await temporaryFolder(t), "killed.mts");
  const source = fileURLToPath(new URL("../../src/export/convert.ts", import.meta.url));
  const onStage = `(stage) => stage.startsWith("checking") && process.kill(process.pid, "SIGKILL")`;
  const options = JSON.stringify({ ...fixture("llama"), target: "safetensors", out });
  await writeFile(
    script,
    `import { convert } from ${JSON.stringify(source)};
     await convert({ ...${options}, onStage: ${onStage} });`,
  );
  const { signal, stderr } = spawnSync(process.execPath, ["--import", "tsx", script], {
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
    encoding: "utf8",
  });
  assert.equal(signal, "SIGKILL", stderr);
}
