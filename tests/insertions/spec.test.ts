// ssa_config.json: what is written is read back, and every missing or odd field is named.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../src/core/errors.ts";
import {
  formsOf,
  specFromJson,
  specToJson,
  type TemperatureSpec,
} from "../../src/insertions/parts.ts";

const boolean = fc.boolean();
const never = fc.constant(false);
const number = fc.oneof(never, fc.double({ min: 1.5, max: 1e6, noNaN: true }));
const own = { token: boolean, position: boolean, constant: boolean };
const off = { ssmax: never, ssmaxBias: never, logn: never, yarn: never };
const ofLogits = { ssmax: number, ssmaxBias: boolean, logn: number, yarn: number };
const record = <T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(fields, { noNullPrototype: true });
const fields = {
  feature: fc.constantFrom(...formsOf("feature")),
  position: fc.constantFrom(...formsOf("position")),
  hidden: fc.constantFrom(...formsOf("hidden")),
  tie: fc.constantFrom(...formsOf("tie")),
  query: record({ ...own, ...ofLogits }),
  key: record({ ...own, ...off }),
  value: record({ ...own, ...off }),
};
const specs: fc.Arbitrary<TemperatureSpec> = record(fields);

const json = {
  format_version: 1,
  feature: "gelu",
  position: "tanh",
  query: { token: true, position: true },
  key: { token: false, position: false },
  value: { token: true, position: false },
};

test("every specification survives a round trip", () => {
  fc.assert(
    fc.property(specs, (spec) => {
      const text = JSON.stringify(specToJson(spec));
      assert.deepEqual(specFromJson("ssa_config.json", JSON.parse(text)), spec);
    }),
  );
});

test("the file has exactly the six fields that other readers expect", () => {
  assert.deepEqual(specToJson(specFromJson("ssa_config.json", json)), json);
});

test("a constant part needs version 2, which says it of every projection", () => {
  const first = specFromJson("ssa_config.json", json);
  const spec = { ...first, key: { ...first.key, constant: true } };
  const choice = { token: false, position: false, constant: false };
  assert.deepEqual(specToJson(spec), {
    ...json,
    format_version: 2,
    query: { token: true, position: true, constant: false },
    key: { ...choice, constant: true },
    value: { ...choice, token: true },
  });
});

test("an adapter's further fields are no part of the specification", () => {
  const adapter = { ...json, base_model_name_or_path: "gpt2", base_sha256: "0".repeat(64) };
  assert.deepEqual(specToJson(specFromJson("ssa_config.json", adapter)), json);
});

/** Of version 3, with a change of the query's or the value's parts. */
function third(query: object, value: object = {}) {
  const parts = { ...off, constant: false };
  const none = Object.fromEntries(Object.keys(parts).map((part) => [part, false]));
  const of = (own: object, change: object = {}) => ({ ...none, ...own, ...change });
  const projections = {
    query: of(json.query, query),
    key: of(json.key),
    value: of(json.value, value),
  };
  return { ...json, format_version: 3, hidden: "shared", tie: "none", ...projections };
}

test("the parts and forms of version 3 are kept", () => {
  const given = { ...third({ logn: 1024, ssmaxBias: true }), tie: "heads" };
  assert.deepEqual(specToJson(specFromJson("ssa_config.json", given)), given);
});

const broken: readonly (readonly [string, unknown, RegExp])[] = [
  ["no object", null, /"format_version" must be 1 or 2 or 3, found \(absent\)/],
  ["a newer version", { ...json, format_version: 4 }, /"format_version" must be 1 or 2 or 3, .* 4/],
  ["version 2 without its part", { ...json, format_version: 2 }, /"query" must be .*"constant"/],
  ["no feature", { ...json, feature: undefined }, /"feature" must be gelu or linear or tanh/],
  ["an unknown feature", { ...json, feature: "relu" }, /found "relu"/],
  ["an unknown position", { ...json, position: true }, /"position" must be tanh or linear or/],
  ["version 3 without its forms", { ...json, format_version: 3 }, /"hidden" must be shared or own/],
  ["a number that a part does not take", third({ logn: 1 }), /"logn": false or a number above 1/],
  ["true where a number is needed", third({ yarn: true }), /"yarn": false or a number above 1/],
  ["no number", third({ ssmax: Number.NaN }), /"ssmax": false or a number above 0/],
  ["logits' parts elsewhere", third({}, { yarn: 2 }), /"value" must be .*"yarn": false: it is of/],
  ["no query", { ...json, query: undefined }, /"query" must be .*found \(absent\)/],
  ["a part missing", { ...json, key: { token: true } }, /"key" must be .*found \{"token":true\}/],
  ["a part of another type", { ...json, value: { token: 1, position: 0 } }, /"value" must be/],
];

for (const [what, value, message] of broken)
  test(`refuses ${what}`, () => {
    assert.throws(
      () => specFromJson("dir/ssa_config.json", value),
      (error: unknown) => {
        assert.ok(error instanceof UserError);
        assert.match(error.message, /^dir\/ssa_config\.json: /);
        assert.match(error.message, message);
        return true;
      },
    );
  });
