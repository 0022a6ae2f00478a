// Recipes: layers, strictness, all mistakes at once, and the way back to YAML.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../src/core/errors.ts";
import { onlyParts } from "../../src/insertions/parts.ts";
import { fromFlags, readOptions } from "../../src/options/values.ts";
import { flag, maybe, percentage } from "../../src/options/values.ts";
import { loadRecipe, recipeToYaml, resumedRecipe } from "../../src/options/load.ts";
import type { RecipeSources } from "../../src/options/load.ts";
import { recipeOptions } from "../../src/options/schema.ts";
import type { Recipe } from "../../src/options/schema.ts";

const least = "base: b\ndata: d\n";

function load(text: string, more: Omit<RecipeSources, "file"> = {}): Recipe {
  return loadRecipe({ file: { path: "r.yaml", text: least + text }, ...more });
}

/** The message of the UserError that loading must throw. */
function complaint(text: string, more: Omit<RecipeSources, "file"> = {}): string {
  try {
    load(text, more);
  } catch (error) {
    assert.ok(error instanceof UserError, String(error));
    assert.equal(error.exitCode, 2);
    return error.message;
  }
  return assert.fail("the recipe was accepted");
}

test("the defaults are the documented ones", () => {
  assert.deepEqual(load(""), {
    base: "b",
    data: "d",
    evalData: null,
    out: null,
    textColumn: null,
    format: "auto",
    columns: null,
    chatTemplate: null,
    lossOn: "answers",
    badRows: "error",
    nullRows: "error",
    maxTokens: null,
    holdOut: 0.05,
    tune: ["temperatures"],
    quantize: "none",
    quantizeBlock: 32,
    quantizeZeroPoints: false,
    quantizeHead: false,
    init: "pretrained",
    temperatures: {
      query: onlyParts("token", "position"),
      key: onlyParts(),
      value: onlyParts("token"),
    },
    feature: "gelu",
    position: "tanh",
    hidden: "shared",
    tie: "none",
    maxAddedShare: 0.005,
    lora: { rank: 8, alpha: 16, modules: ["attention"] },
    steps: 200,
    context: "auto",
    packing: "auto",
    batchSize: 1,
    gradientAccumulationSteps: 4,
    learningRate: 3e-2,
    loraLearningRate: 1e-3,
    baseLearningRate: 1e-5,
    minLearningRate: 0,
    warmupSteps: 20,
    schedule: "cosine",
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: 0.01,
    maxGradNorm: 1,
    seed: 0,
    evalEvery: 50,
    evalWindows: 64,
    reportWindows: "all",
    tasks: null,
    earlyStopping: "off",
    saveEvery: 50,
    keepLast: 2,
    tensorboard: false,
    final: "model",
    device: "auto",
    deviceMemory: "auto",
    precision: "fp32",
    maxMemory: "auto",
    recompute: "auto",
    threads: "auto",
  });
});

test("a flag beats --set, which beats the file, which beats a saved recipe and the default", () => {
  const text = "steps: 1\nseed: 1\nbatchSize: 1";
  const saved = load("steps: 9\nseed: 9\nbatchSize: 9\nkeepLast: 9");
  const sets = ["seed=2", "batchSize=2"];
  const recipe = load(text, { saved, sets, flags: { batchSize: "3", device: undefined } });
  assert.deepEqual(
    [recipe.steps, recipe.seed, recipe.batchSize, recipe.keepLast, recipe.device],
    [1, 2, 3, 9, "auto"],
  );
});

test("numbers are YAML 1.2's, and off is a word", () => {
  assert.equal(load("learningRate: 1e-5").learningRate, 1e-5);
  assert.equal(load("", { sets: ["epsilon=1e-9"] }).epsilon, 1e-9);
  assert.equal(load("", { flags: { learningRate: "3E-4" } }).learningRate, 3e-4);
  assert.equal(load("earlyStopping: off").earlyStopping, "off");
});

test("text is never read as a number, a date or a word of YAML", () => {
  const recipe = load("", { sets: ["data=[1"], flags: { base: "2024-01-01", out: "null" } });
  assert.deepEqual([recipe.base, recipe.data, recipe.out], ["2024-01-01", "[1", "null"]);
});

test("tune is a comma list or a YAML list, put in order", () => {
  for (const text of ["tune: norms, temperatures", "tune: [norms, temperatures, norms]"])
    assert.deepEqual(load(text).tune, ["temperatures", "norms"]);
  assert.deepEqual(load("", { sets: ["tune=[all]"] }).tune, ["all"]);
  assert.match(complaint("tune: temperatures,normz"), /found "normz"; did you mean norms\?/);
  assert.match(complaint("tune: []"), /expected some of temperatures, lora, norms/);
});

test("a projection in a file is complete in itself; --set changes one part", () => {
  const file = load("temperatures:\n  value: {}\n  key: {token: true}");
  assert.deepEqual(file.temperatures, {
    query: onlyParts("token", "position"),
    key: onlyParts("token"),
    value: onlyParts(),
  });
  const set = load("", { sets: ["temperatures.key.token=true", "temperatures.query.token=false"] });
  assert.deepEqual(set.temperatures, {
    query: onlyParts("position"),
    key: onlyParts("token"),
    value: onlyParts("token"),
  });
});

test("a part with a number takes it in place of true, on the query", () => {
  const { query } = load("temperatures: {query: {logn: 1024, ssmaxBias: true}}").temperatures;
  assert.deepEqual(query, { ...onlyParts("ssmaxBias"), logn: 1024 });
  const set = load("", { sets: ["temperatures.query.yarn=2.5"] }).temperatures.query;
  assert.deepEqual(set, { ...onlyParts("token", "position"), yarn: 2.5 });
  const of = (parts: string) => complaint(`temperatures: {${parts}}`);
  assert.match(
    of("query: {logn: true}"),
    /query.logn .*: expected false or a number above 1, .* true/,
  );
  assert.match(
    of("query: {yarn: 1}"),
    /expected false or a number above 1, how many times as long/,
  );
  assert.match(
    of("query: {ssmax: .inf}"),
    /expected false or a number above 0, what s starts from/,
  );
  assert.match(of("query: {ssmaxBias: 1}"), /ssmaxBias .*: expected true or false, found 1/);
  assert.match(
    of("value: {logn: 8}"),
    /value.logn .*: expected false: it is of logits, on the query/,
  );
  assert.match(of("query: {logm: 8}"), /unknown key; did you mean temperatures.query.logn\?/);
  assert.match(
    complaint("tie: head"),
    /expected none, heads, layers or all, .* did you mean heads\?/,
  );
  assert.match(complaint("hidden: none"), /expected shared or own, found "none"/);
});

test("early stopping takes a patience, also as a bare number", () => {
  const expected = { patience: 3 };
  assert.deepEqual(load("earlyStopping: {patience: 3}").earlyStopping, expected);
  assert.deepEqual(load("", { flags: { earlyStopping: "3" } }).earlyStopping, expected);
  assert.deepEqual(load("", { sets: ["earlyStopping.patience=3"] }).earlyStopping, expected);
  assert.match(
    complaint("earlyStopping: {patience: 0}"),
    /earlyStopping \(r.yaml:3\): expected off or \{patience.*found 0/,
  );
});

test("warm-up by default is at most half of the steps", () => {
  assert.equal(load("steps: 10").warmupSteps, 5);
  assert.equal(load("steps: 10\nwarmupSteps: 10").warmupSteps, 10);
  assert.match(complaint("steps: 10\nwarmupSteps: 11"), /warmupSteps \(r.yaml:4\): 11 is more/);
});

test("every mistake is reported, with its path and its origin", () => {
  const message = complaint(
    "learningrate: 1\nsteps: 1.5\nschedule: cosin\ntemperatures: {qery: {}}",
    {
      sets: ["temperatures.key.tokn=true", "seed=-1"],
      flags: { batchSize: "many" },
    },
  );
  assert.deepEqual(message.split("\n").toSorted(), [
    '  batchSize (--batch-size): expected auto or a whole number of at least 1, found "many"',
    "  learningrate (r.yaml:3): unknown key; did you mean learningRate?",
    '  schedule (r.yaml:5): expected constant, linear or cosine, found "cosin"; did you mean cosine?',
    "  seed (--set): expected a whole number of at least 0, found -1",
    "  steps (r.yaml:4): expected a whole number of at least 1, found 1.5",
    "  temperatures.key.tokn (--set): unknown key; did you mean temperatures.key.token?",
    "  temperatures.qery (r.yaml:6): unknown key; did you mean temperatures.query?",
    "7 mistakes:",
  ]);
});

test("data is one name, or a list of sources; weights are for all of them or none", () => {
  const dataOf = (data: readonly string[]) => load("", { flags: { data } }).data;
  const source = (path: string, weight: number | null = null, split: string | null = null) => ({
    path,
    weight,
    split,
  });
  assert.equal(dataOf(["a.txt"]), "a.txt");
  assert.deepEqual(dataOf(["a.txt", "1"]), [source("a.txt"), source("1")]);
  const list =
    "base: b\ndata:\n  - {path: a, weight: 2}\n  - {path: b, weight: 0.5, split: train_sft}\n";
  const recipe = loadRecipe({ file: { path: "r.yaml", text: list } });
  assert.deepEqual(recipe.data, [source("a", 2), source("b", 0.5, "train_sft")]);
  const again = loadRecipe({ file: { path: "again.yaml", text: recipeToYaml(recipe) } });
  assert.deepEqual(again, recipe);
  const wrong: readonly (readonly [string, RegExp])[] = [
    ["[{path: a, weight: 1}, b]", /^data .*some have a weight and some have none/],
    ["[{path: a, wieght: 1}]", /^data.0.wieght: unknown key/],
    ["[{path: a, weight: 0}]", /^data .*expected text, or a list/],
    ["[]", /^data .*expected text, or a list/],
    ["7", /^data .*expected text, or a list .*found 7/],
  ];
  for (const [data, message] of wrong)
    assert.throws(() => loadRecipe({ file: { path: "r.yaml", text: `base: b\ndata: ${data}` } }), {
      name: "UserError",
      message,
    });
});

test("a base and data are needed", () => {
  assert.throws(() => loadRecipe({}), /base: missing; expected text\n  data: missing/);
});

test("YAML's own mistakes are the user's, with their place", () => {
  assert.match(complaint("seed: 1\nseed: 2"), /r.yaml: Map keys must be unique at line 4.*: seed/);
  assert.match(
    complaint("---\nseed: 2"),
    /r.yaml: Source contains multiple documents, expected one$/m,
  );
  assert.match(complaint("seed: *none"), /r.yaml: .*alias.*none/);
  assert.match(complaint("seed: ["), /r.yaml: .* line 3/);
  assert.match(complaint("seed: !!secret 1"), /r.yaml: Unresolved tag/);
  assert.throws(() => loadRecipe({ file: { path: "l.yaml", text: "- 1" } }), /expected keys/);
  assert.throws(() => loadRecipe({ sets: ["steps"] }), /--set: expected path=value, found "steps"/);
  assert.match(complaint("", { sets: ["steps=["] }), /steps \(--set\): /);
});

test("names of JavaScript's own are unknown keys", () => {
  for (const set of ["__proto__.steps=1", "constructor=1", "toString.x=1"])
    assert.match(complaint("", { sets: [set] }), /unknown key/);
  assert.match(complaint("__proto__: {steps: 1}"), /__proto__ \(r.yaml:3\): unknown key/);
  assert.match(complaint("", { sets: ["temperatures.__proto__.token=1"] }), /unknown key/);
});

test("keys that contradict each other are refused", () => {
  const none = "temperatures: {query: {}, value: {}}";
  assert.match(complaint(none), /temperatures \(r.yaml:3\): every part is off/);
  assert.equal(load(`${none}\ntune: norms`).tune.length, 1);
  assert.match(complaint("minLearningRate: 1"), /1 is more than learningRate, 0.03/);
  assert.match(complaint("final: adapter\ntune: [temperatures, norms]"), /final \(r.yaml:3\)/);
  assert.match(complaint("final: adapter\ninit: random"), /final \(r.yaml:3\)/);
});

test("devices and number formats are those of the tables that own them", () => {
  for (const device of ["auto", "cpu", "cuda:1", "dml:0", "tfjs:wasm"])
    assert.equal(load("", { sets: [`device=${device}`] }).device, device);
  assert.match(
    complaint("device: cuda:x"),
    /expected auto, cpu, .*\(cuda:1\), or several .*, found "cuda:x"/,
  );
  for (const devices of ["cuda:0,cuda:1", "dml:1,dml:0", "cpu,cpu,cpu"])
    assert.equal(load("", { sets: [`device=${devices}`] }).device, devices);
  for (const devices of ["auto,cuda", "cpu,cuda:0", "cuda,cuda:1", "cuda:0,cuda:0", "cuda:0,"])
    assert.match(complaint(`device: "${devices}"`), /expected auto, .* or several of a kind/);
  assert.match(
    complaint("device: cpu,cpu\ngradientAccumulationSteps: 1"),
    /device \(r.yaml:3\): 2 devices, but gradientAccumulationSteps gives them 1 micro batch a step/,
  );
  assert.match(complaint("device: cdua"), /did you mean cuda\?/);
  const formats = ["f16", "fp16", "float16", "F32", "bf16"];
  assert.deepEqual(
    formats.map((precision) => load(`precision: ${precision}`).precision),
    ["fp16", "fp16", "fp16", "fp32", "bf16"],
  );
  assert.match(complaint("precision: int8"), /expected auto, fp32, fp16 or bf16, found "int8"/);
});

test("the environment names a device under --set and flags, over the file", () => {
  const env = { SSA_DEVICE: "webgpu" };
  assert.equal(load("device: cpu", { env }).device, "webgpu");
  assert.equal(load("", { env, flags: { device: "cpu" } }).device, "cpu");
  assert.match(complaint("", { env: { SSA_DEVICE: "abacus" } }), /device \(SSA_DEVICE\): expected/);
});

test("other commands' options: percentages, switches, what is left out", () => {
  const shape = { maxIncrease: maybe(percentage(), "rise"), json: flag("JSON") };
  const read = (maxIncrease?: string) => readOptions(shape, fromFlags({ maxIncrease }));
  assert.deepEqual(
    ["0.5%", "0.5", "2 %", "0"].map((text) => read(text).maxIncrease),
    [0.5, 0.5, 2, 0],
  );
  assert.deepEqual({ ...read() }, { json: false });
  for (const wrong of ["%", "-1%", "half", "0.5%%"])
    assert.throws(
      () => read(wrong),
      /^UserError: maxIncrease \(--max-increase\): expected a percent/,
    );
});

test("what a recipe resolves to survives YAML", () => {
  const word = fc.string({ minLength: 1 });
  fc.assert(
    fc.property(word, word, fc.double({ min: 1e-12, max: 1, noNaN: true }), (base, out, rate) => {
      const flags = { base, data: "d", out, learningRate: rate, earlyStopping: 2 };
      const recipe = loadRecipe({ flags });
      const file = { path: "recipe.yaml", text: recipeToYaml(recipe) };
      assert.deepEqual(loadRecipe({ file }), recipe);
    }),
  );
});

test("a resumed run may have more steps, other devices of its kind, micro batches of another size, and another folder; nothing else may differ", () => {
  const file = { path: "r.yaml", text: recipeToYaml(load("steps: 10\nout: a")) };
  const saved = loadRecipe({ file });
  const resumed = (flags: RecipeSources["flags"] = {}) => resumedRecipe(file, { flags });
  assert.deepEqual(resumed(), saved);
  assert.deepEqual(resumed({ out: "b", seed: "0" }), saved);
  assert.deepEqual(resumed({ steps: "20" }), { ...saved, steps: 20 });
  const devices = {
    device: "cpu,cpu",
    deviceMemory: 5,
    maxMemory: 9,
    threads: 2,
    tensorboard: true,
    batchSize: 2,
    gradientAccumulationSteps: 2,
  };
  const begun = { path: "r.yaml", text: recipeToYaml(load("steps: 10\nout: a\ndevice: cpu")) };
  assert.deepEqual(resumedRecipe(begun, { flags: devices }), {
    ...saved,
    ...devices,
  });
  assert.throws(() => resumed({ device: "cpu" }), /device is "auto", not "cpu"/);
  assert.throws(() => resumed({ batchSize: "2" }), /batchSize is 1, not 2/);
  const refused = /another recipe, r\.yaml: (.*; )?steps is 10, not 4/;
  assert.throws(() => resumed({ steps: "4", seed: "1" }), refused);
  assert.throws(() => resumed({ steps: "20", seed: "1" }), /r\.yaml: seed is 0, not 1$/);
});

test("every option has a description, and a flag unless it is nested", () => {
  for (const { key, description, flag, expected } of recipeOptions) {
    assert.ok(description.length > 0 && description.length < 80, key);
    assert.ok(expected, key);
    assert.equal(flag === undefined, ["temperatures", "lora"].includes(key), key);
  }
  const flags = Object.fromEntries(recipeOptions.map(({ key, flag }) => [key, flag]));
  assert.equal(flags["gradientAccumulationSteps"], "--gradient-accumulation-steps <n>");
  assert.equal(flags["recompute"], "--recompute [when]");
});
