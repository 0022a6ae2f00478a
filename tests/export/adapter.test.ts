// Adapters and runs: temperatures go out, come back to their own base only, and are refused where they are not all.

import assert from "node:assert/strict";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { openModel } from "../../src/model/open.ts";
import { convert } from "../../src/export/convert.ts";
import { modelSha256, openSafetensors, readFloats } from "../../src/files/safetensors.ts";
import { temporaryFolder } from "../helpers.ts";
import { fixture, refused, rewrite, writeRun } from "./fixture.ts";

test("an adapter goes out and comes back; another base is refused", async (t) => {
  const folder = await temporaryFolder(t);
  const source = fixture("gpt_neox");
  const out = join(folder, "adapter");
  const { files } = await convert({ ...source, target: "adapter", out });
  assert.deepEqual(
    files.map(({ name }) => name),
    ["README.md", "ssa_adapter.safetensors", "ssa_config.json"],
  );
  const back = await openModel(source.model, { adapter: out });
  const { temperatures } = await openModel(source.model, source);
  assert.deepEqual(back.temperatures!.values, temperatures!.values);
  assert.deepEqual(back.temperatures!.insertion.spec, temperatures!.insertion.spec);
  const config = JSON.parse(await readFile(join(out, "ssa_config.json"), "utf8")) as object;
  const sha256 = await modelSha256(await openSafetensors(source.model));
  assert.equal(Reflect.get(config, "base_sha256"), sha256);

  const changed = join(folder, "changed");
  await rewrite(source.model, changed, (values) => values.fill(0));
  const to = join(folder, "to");
  await assert.rejects(
    convert({ model: changed, adapter: out, target: "safetensors", out: to }),
    refused(/another base/),
  );
  await assert.rejects(
    convert({ ...fixture("llama"), adapter: out, target: "safetensors", out: to }),
    refused(/another base|the base needs/),
  );
});

test("a base in the hub's cache is named by its id and commit", async (t) => {
  const folder = await temporaryFolder(t);
  const commit = "0123456789".repeat(4);
  const base = join(folder, "models--org--some-model", "snapshots", commit);
  const { model, adapter } = fixture("gpt2");
  await cp(model, base, { recursive: true });
  await writeFile(join(base, "LICENSE"), "as is");
  const out = join(folder, "adapter");
  await convert({ model: base, adapter, target: "adapter", out });
  const config = JSON.parse(await readFile(join(out, "ssa_config.json"), "utf8")) as object;
  assert.equal(Reflect.get(config, "base_model_name_or_path"), "org/some-model");
  assert.equal(Reflect.get(config, "base_revision"), commit);
  // The name finds the base again.
  const asked: unknown[] = [];
  const resolve = async (name: string) => (name === out ? out : (asked.push(name), base));
  const whole = await convert({
    model: out,
    resolve,
    target: "safetensors",
    out: join(folder, "whole"),
  });
  assert.deepEqual(asked, [`org/some-model@${commit}`]);
  const card = await readFile(join(whole.out, "README.md"), "utf8");
  assert.match(
    card,
    /^---\nlicense: other\nlicense_link: LICENSE\nbase_model: "org\/some-model"\n/,
  );
  assert.deepEqual(whole.notes, [
    "the source has no tokenizer.json: its users will have to bring one",
  ]);
});

test("a run's final/ becomes an adapter, with its base from the run's record", async (t) => {
  const folder = await temporaryFolder(t);
  const run = await writeRun(folder);
  const out = join(folder, "adapter");
  await convert({ model: run, target: "adapter", out });
  const config = JSON.parse(await readFile(join(out, "ssa_config.json"), "utf8")) as object;
  assert.ok(Reflect.get(config, "base_model_name_or_path"));
  assert.match(String(Reflect.get(config, "base_sha256")), /^[0-9a-f]{64}$/);
  const { tensors } = await openSafetensors(join(out, "ssa_adapter.safetensors"));
  const { temperatures } = await openModel(fixture("llama").model, fixture("llama"));
  for (const [name, values] of temperatures!.values)
    assert.deepEqual(await readFloats(tensors.get(name)!), values);
});

test("a run's card has its perplexities, recipe and licence", async (t) => {
  const folder = await temporaryFolder(t);
  const run = await writeRun(folder, {
    licence: "license: apache-2.0",
  });
  const out = join(folder, "folder");
  await convert({ model: run, target: "safetensors", out });
  const card = await readFile(join(out, "README.md"), "utf8");
  for (const line of [
    /^---\nlicense: apache-2\.0\n/,
    /\ndatasets: \["org\/data"\]\n/,
    /\| before \| 20\.5000 \|/,
    /\| after \| 18\.2500 \|/,
    /-10\.98 %, 95 % interval -12\.50 to -9\.25 %/,
    /convention disjoint, context 32, stride 32/,
    /- steps: 20\n/,
    / values, all equal\.\n/,
  ])
    assert.match(card, line);
  const front = parse(card.split("---\n")[1]!) as Record<string, [Record<string, [object]>]>;
  assert.deepEqual(Object.keys(front["model-index"]![0]["results"]![0]), [
    "task",
    "dataset",
    "metrics",
  ]);
});

test("temperatures are no adapter where more was trained, or where nobody says so", async (t) => {
  const folder = await temporaryFolder(t);
  const more = await writeRun(folder, { tune: ["temperatures", "norms"] });
  const out = join(folder, "adapter");
  const options = { target: "adapter", out } as const;
  await assert.rejects(convert({ model: more, ...options }), refused(/more than temperatures/));
  await assert.rejects(
    convert({ model: join(more, "final"), ...options }),
    refused(/more than temperatures/),
  );
  const { model, adapter } = fixture("llama");
  await assert.rejects(convert({ model, ...options }), refused(/has no temperatures/));

  const snapshot = join(folder, "step-000010");
  await cp(adapter, snapshot, { recursive: true });
  await writeFile(join(snapshot, "trained.safetensors"), "");
  for (const target of ["adapter", "safetensors", "onnx"] as const)
    await assert.rejects(
      convert({ model, adapter: snapshot, target, out }),
      refused(/trained more than temperatures/),
    );

  const unknown = join(folder, "unknown");
  await rewrite(join(more, "final"), unknown, (values) => values);
  await assert.rejects(convert({ model: unknown, ...options }), refused(/does not say/));
});
