// ssa_config.json: what is written is read back, and every missing or odd field is named.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../src/core/errors.ts";
import { specFromJson, specToJson, type TemperatureSpec } from "../../src/insertions/parts.ts";

const boolean = fc.boolean();
const parts = fc.record(
  { token: boolean, position: boolean, constant: boolean },
  { noNullPrototype: true },
);
const fields = {
  feature: fc.constantFrom("gelu" as const, "linear" as const),
  position: fc.constantFrom("tanh" as const, "linear" as const),
  query: parts,
  key: parts,
  value: parts,
};
const specs: fc.Arbitrary<TemperatureSpec> = fc.record(fields, { noNullPrototype: true });

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

const broken: readonly (readonly [string, unknown, RegExp])[] = [
  ["no object", null, /"format_version" must be 1 or 2, found \(absent\)/],
  ["a newer version", { ...json, format_version: 3 }, /"format_version" must be 1 or 2, found 3/],
  ["version 2 without its part", { ...json, format_version: 2 }, /"query" must be .*"constant"/],
  ["no feature", { ...json, feature: undefined }, /"feature" must be gelu or linear/],
  ["an unknown feature", { ...json, feature: "relu" }, /found "relu"/],
  ["an unknown position", { ...json, position: true }, /"position" must be tanh or linear/],
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
