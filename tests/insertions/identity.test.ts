// Temperatures before training: as many parameters as promised, and no effect at all, to the bit.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openModel } from "../../src/model/open.ts";
import { type OpenedModel, countParameters } from "../../src/model/opened.ts";
import { createRandom } from "../../src/core/random.ts";
import { sizeOf } from "../../src/core/shape.ts";
import { type Engine, openEngine } from "../../src/engines/index.ts";
import { openSafetensors, readBytes } from "../../src/files/safetensors.ts";
import { type Model, readModel } from "../../src/models/index.ts";
import { withInitialValues } from "../../src/insertions/insertion.ts";
import {
  DEFAULT_TEMPERATURES as byDefault,
  onlyParts,
  type TemperatureSpec,
} from "../../src/insertions/parts.ts";
import { temperatures } from "../../src/insertions/temperatures.ts";
import { logits } from "../model/logits.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;

const both = onlyParts("token", "position");
const [token, position] = [onlyParts("token"), onlyParts("position")];
const constant = onlyParts("constant");
const specs: Readonly<Record<string, TemperatureSpec>> = {
  default: byDefault,
  full: { ...byDefault, key: both, value: both },
  linear: {
    ...byDefault,
    feature: "linear",
    position: "linear",
    query: both,
    key: token,
    value: position,
  },
  constant: { ...byDefault, query: constant, key: constant, value: constant },
  others: {
    ...byDefault,
    hidden: "own",
    tie: "heads",
    query: onlyParts("ssmaxBias"),
    value: token,
  },
};

/** Added parameters by specification: 2 layers times what each projection's heads need. */
const added: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  gpt2: { default: 90, full: 144, linear: 96, constant: 18, others: 234 }, // 3 heads of 6 in 18
  llama: { default: 92, full: 128, linear: 96, constant: 16, others: 306 }, // 4 query heads and 2 key-value heads of 6 in 24
  gpt_neox: { default: 140, full: 216, linear: 144, constant: 12, others: 1062 }, // 2 heads of 16 in 32
  gemma2: { default: 92, full: 128, linear: 96, constant: 16, others: 258 }, // as llama, in 20
};

let engine: Engine;
before(async () => (engine = await openEngine("cpu", { threads: 1 })));
after(() => engine.dispose());

for (const [variant, counts] of Object.entries(added))
  for (const [name, spec] of Object.entries(specs)) {
    test(`${variant}, ${name}: ${counts[name]} parameters`, async () => {
      const { model } = await openModel(join(fixtures, variant));
      const insertion = temperatures.of(spec);
      const shapes = shapesOf(spec, model);
      assert.equal(total(shapes.values()), counts[name]);
      assert.ok([...shapes.keys()].every(temperatures.owns));
      const described = insertion.describe(model).map(({ parameters }) => parameters);
      assert.equal(
        described.reduce((sum, count) => sum + count),
        counts[name],
      );
    });

    test(`${variant}, ${name}: zero temperatures give the base's logits bit for bit`, async () => {
      const base = await openModel(join(fixtures, variant));
      const insertion = temperatures.of(spec);
      const { values } = withInitialValues(insertion, base.model, createRandom(0));
      const { tensors } = await openSafetensors(join(fixtures, variant, "expected.safetensors"));
      const info = tensors.get("input_ids")!;
      const ids = [...new BigInt64Array((await readBytes(info)).buffer as ArrayBuffer)];
      const logitsOf = (model: OpenedModel) => logits(engine, model, ids, info.shape[0]);
      const expected = await logitsOf(base);
      const opened = { ...base, temperatures: { insertion, values } };
      assert.deepEqual(await logitsOf(opened), expected);

      // So that the test can fail: the smallest change of one temperature shows.
      const changed = [...values.keys()].find((name) =>
        /query\.(position|constant|ssmax_bias)$/.test(name),
      )!;
      values.get(changed)![0]! += 1e-3;
      assert.notDeepEqual(await logitsOf(opened), expected);
    });
  }

test("GPT-2 small with the defaults: 18,864 parameters, 0.015 % of its own", () => {
  const config = { model_type: "gpt2", n_embd: 768, n_head: 12, n_layer: 12, vocab_size: 50257 };
  const model = readModel("config.json", config);
  assert.equal(countParameters(model), 124_439_808);
  const shapes = shapesOf(byDefault, model);
  assert.equal(total(shapes.values()), 18_864);
  assert.deepEqual([...shapes].slice(0, 5), [
    ["transformer.h.0.attn.ssa.query.weight", [12, 64]],
    ["transformer.h.0.attn.ssa.query.bias", [12]],
    ["transformer.h.0.attn.ssa.query.position", [12]],
    ["transformer.h.0.attn.ssa.value.weight", [12, 64]],
    ["transformer.h.0.attn.ssa.value.bias", [12]],
  ]);
});

test("names follow each architecture's attention", async () => {
  const firstOf = async (variant: string) => {
    const { model } = await openModel(join(fixtures, variant));
    return [...shapesOf(byDefault, model).keys()][0];
  };
  assert.equal(await firstOf("llama"), "model.layers.0.self_attn.ssa.query.weight");
  assert.equal(await firstOf("gpt_neox"), "gpt_neox.layers.0.attention.ssa.query.weight");
  assert.ok(!temperatures.owns("model.layers.0.self_attn.q_proj.weight"));
  assert.ok(!temperatures.owns("transformer.h.0.attn.ssa.output.weight"));
});

const shapesOf = (spec: TemperatureSpec, model: Model) => {
  const parameters = temperatures.of(spec).parameters(model);
  return new Map([...parameters].map(([name, { shape }]) => [name, shape]));
};
const total = (shapes: Iterable<readonly (number | string)[]>) =>
  [...shapes].reduce((sum, shape) => sum + sizeOf(shape), 0);
