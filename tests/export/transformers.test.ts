// The folder for Python's transformers computes what we compute: its code runs on PyTorch, over a stand-in for the part
// of transformers that it names (tests/gpu/transformers.py: over the real one).

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createRandom } from "../../src/core/random.ts";
import { convert } from "../../src/export/convert.ts";
import { onlyParts } from "../../src/insertions/parts.ts";
import { openSafetensors, readBytes, readFloats } from "../../src/files/safetensors.ts";
import { openModel } from "../../src/model/open.ts";
import { specsOf, variants } from "../fixtures/variants.ts";
import { allClose, temporaryFolder } from "../helpers.ts";
import { fixture, openGreedy, refused } from "./fixture.ts";

const asks = ["-c", "import importlib.util as i, sys; sys.exit(i.find_spec('torch') is None)"];
const python = ["python3", "/usr/bin/python3"].find((name) => spawnSync(name, asks).status === 0);
const skip = python === undefined && "python3 has no torch";
const script = (name: string) => fileURLToPath(new URL(`python/${name}`, import.meta.url));

function run(name: string, { args = [] as string[], input = "" } = {}): string {
  const environment = { ...process.env, PYTHONDONTWRITEBYTECODE: "1", OMP_NUM_THREADS: "1" };
  const options = { input, encoding: "utf8", maxBuffer: 2 ** 28, env: environment } as const;
  const { stdout, stderr, status } = spawnSync(python!, [script(name), ...args], options);
  assert.equal(status, 0, stderr);
  return stdout;
}

/** What run.py says of a folder. */
interface Result {
  readonly type: string;
  readonly inner: number;
  readonly kept: readonly string[];
  readonly plain: readonly string[];
  readonly starts: Readonly<Record<string, readonly [number, number]>>;
  readonly logits: Readonly<Record<string, readonly number[]>>;
}

/** Every part and form on GPT-2, those that windows change on Mistral, and temperatures everywhere on the other families. */
const cases = variants.flatMap((variant) =>
  specsOf(variant)
    .filter(
      (spec) =>
        variant === "gpt2" || spec === "full" || (variant === "mistral" && /ssmax|logn/.test(spec)),
    )
    .map((spec) => ({ variant, spec })),
);

/** F32's, relative and absolute. */
const ROUNDING = 1e-5;

async function exported(t: TestContext, variant: string, spec: string, change = {}) {
  const folder = await temporaryFolder(t);
  const { model, adapter } = fixture(variant, spec);
  const own = join(folder, "adapter");
  await cp(adapter, own, { recursive: true });
  const path = join(own, "ssa_config.json");
  const json = { ...(JSON.parse(await readFile(path, "utf8")) as object), ...change };
  await writeFile(path, JSON.stringify(json));
  const out = join(folder, "out");
  const done = await convert({ model, adapter: own, target: "transformers", out });
  return { ...done, source: { model, adapter: own }, ...(await truth(adapter)) };
}

/** As many ids as two families have heads, of the second part behind a cache, and more than any window; float64's logits. */
async function truth(adapter: string) {
  const { tensors } = await openSafetensors(join(adapter, "expected.safetensors"));
  const all = await readBytes(tensors.get("input_ids")!);
  const ids = Array.from(new BigInt64Array(all.slice().buffer), Number);
  const logits = await readFloats(tensors.get("logits")!);
  const [first, expected] = [ids.slice(0, ids.length / 2), logits.slice(0, logits.length / 2)];
  return { ids: first, expected, within: 1e-6 };
}

test(
  "logits in Python are those of PyTorch's float64: whole, behind a cache, behind padding, copied",
  { skip },
  async (t) => {
    const folders = [];
    for (const { variant, spec } of cases) folders.push(await exported(t, variant, spec));
    const tanh = await exported(t, "gpt2", "full", { feature: "tanh" });
    const greedy = await openGreedy(await openModel(tanh.source.model, tanh.source), 11);
    folders.push({ ...tanh, expected: await greedy.logits(tanh.ids), within: ROUNDING });
    await greedy.dispose();
    const jobs = folders.map(({ out, ids }) => ({ folder: out, ids: [ids] }));
    const results = JSON.parse(run("run.py", { input: JSON.stringify(jobs) })) as Result[];
    let largest = 0;
    for (const [i, { out, source, expected, within }] of folders.entries()) {
      const { type, inner, kept, plain, starts, logits } = results[i]!;
      const opened = await openModel(source.model, source);
      for (const [how, actual] of Object.entries(logits)) {
        t.diagnostic(`${source.model.split("/").at(-1)} ${how}`);
        // In double precision, but for what is expected and the tables of rotary embeddings.
        const bound = how === "exact" ? within : ROUNDING;
        allClose(actual, expected, { atol: bound, rtol: bound });
        actual.forEach((x, k) => (largest = Math.max(largest, Math.abs(x - expected[k]!))));
      }
      assert.match(type, /^Ssa.+(ForCausalLM|LMHeadModel)$/);
      assert.equal(inner, 0);
      assert.deepEqual(kept, ["torch.float32"]);
      assert.deepEqual(plain, []); // a later model of that type, without temperatures
      // A model without weights starts as ours does.
      const parameters = opened.temperatures!.insertion.parameters(opened.model);
      assert.deepEqual(Object.keys(starts).sort(), [...parameters.keys()].sort(), out);
      for (const [name, { initial, shape }] of parameters) {
        const [least, most] = starts[name]!;
        const bound = name.endsWith(".hidden") ? Number(shape[1]) ** -0.5 : undefined;
        const expectedStart = bound ?? initial(createRandom(0));
        if (bound) assert.ok(-bound <= least && least < most && most <= bound, name);
        else allClose([least, most], [expectedStart, expectedStart], { rtol: 1e-7 });
      }
    }
    t.diagnostic(`${folders.length} folders, largest difference ${largest}`);
  },
);

test("what transformers changes is an error, not another model", { skip }, async (t) => {
  const { out } = await exported(t, "llama", "full");
  const said = run("refusal.py", { args: [out] });
  assert.match(said, /LlamaAttention .*does not use \['k_proj', 'q_proj', 'v_proj'\]/);
});

test("the folder is a model of ours, and its code is left behind where it is not needed", async (t) => {
  const { out, files, verification } = await exported(t, "gemma2", "full");
  assert.equal(verification.what, "weights");
  assert.ok(files.some(({ name }) => name === "modeling_ssa.py"));
  const card = await readFile(join(out, "README.md"), "utf8");
  assert.match(
    card,
    /library_name: "transformers"[^]*trust_remote_code=True[^]*runs the base model/,
  );
  const config = JSON.parse(await readFile(join(out, "config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  assert.deepEqual(config["architectures"], ["SsaGemma2ForCausalLM"]);

  const folder = await temporaryFolder(t);
  const again = join(folder, "again");
  await convert({ model: out, target: "safetensors", out: again });
  const base = fixture("gemma2").model;
  const read = async (path: string) =>
    JSON.parse(await readFile(join(path, "config.json"), "utf8")) as unknown;
  assert.deepEqual(await read(again), await read(base));
  assert.ok(!(await readdir(again)).includes("modeling_ssa.py"));
});

test("numbers of config.json that a float stands for stay floats", async (t) => {
  const { out } = await exported(t, "gemma2", "full");
  const text = await readFile(join(out, "config.json"), "utf8");
  assert.match(text, /"final_logit_softcapping": 2\.0,/);
  assert.match(text, /"rope_theta": 10000\.0,/);
  assert.match(text, /"sliding_window": 4,/);
});

test("a model without temperatures needs no code", async (t) => {
  const out = join(await temporaryFolder(t), "plain");
  const { notes } = await convert({ model: fixture("llama").model, target: "transformers", out });
  assert.match(notes.join("\n"), /nothing is left that needs code/);
  const names = await readdir(out);
  assert.ok(!names.includes("modeling_ssa.py") && names.includes("config.json"));
  assert.doesNotMatch(await readFile(join(out, "config.json"), "utf8"), /auto_map|"ssa"/);
});

test("--fold refuses what depends on tokens or positions, or stands behind a norm", async (t) => {
  const out = join(await temporaryFolder(t), "out");
  const demanded = { target: "safetensors", mustFold: true, out } as const;
  await assert.rejects(
    convert({ ...fixture("gpt2", "default"), ...demanded }),
    refused(
      /query \(token \+ position\), value \(token\) are not all the same[^]*--to transformers/,
    ),
  );
  const { model } = fixture("qwen3");
  const temperatures = { query: onlyParts("constant"), value: onlyParts() };
  await assert.rejects(
    convert({ model, temperatures, ...demanded }),
    refused(/query \(constant\) stand behind a norm/),
  );
  await assert.rejects(
    convert({ ...fixture("gpt2"), ...demanded, target: "adapter" }),
    refused(/not part of the weights/),
  );
  const { notes } = await convert({ model: fixture("gpt2").model, temperatures, ...demanded });
  assert.match(notes.join("\n"), /constant temperatures became part of the weights/);
});
