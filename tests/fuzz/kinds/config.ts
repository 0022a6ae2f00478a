// config.json of each family, beside weights that fit it.

import { cp, readFile } from "node:fs/promises";
import { join } from "node:path";
import { topologicalOrder } from "../../../src/graph/tensor.ts";
import { buildForward } from "../../../src/model/graph.ts";
import { openModel } from "../../../src/model/open.ts";
import type { OpenedModel } from "../../../src/model/opened.ts";
import type { ModelConfig } from "../../../src/models/index.ts";
import { variants } from "../../fixtures/variants.ts";
import { fixture } from "../../run/small-run.ts";
import { expect, reading } from "../contract.ts";
import { happens, mutateBytes, mutateJson, pick } from "../mutate.ts";
import { lay, type Prepare, subject } from "../subject.ts";

interface Base {
  readonly folder: string;
  readonly text: string;
  readonly json: Readonly<Record<string, unknown>>;
  readonly graph: string;
}

interface Case {
  readonly base: Base;
  readonly text: string;
}

/** Where a config states what the program's own reading of it holds, in the order in which it counts. */
const stated = {
  hiddenSize: ["n_embd", "hidden_size"],
  numLayers: ["n_layer", "num_layers", "num_hidden_layers"],
  numHeads: ["n_head", "num_heads", "num_attention_heads"],
  numKeyValueHeads: ["num_key_value_heads"],
  headDim: ["head_dim"],
  intermediateSize: ["n_inner", "ffn_dim", "intermediate_size"],
  vocabSize: ["vocab_size"],
  maxPositions: ["n_positions", "n_ctx", "max_position_embeddings"],
  normEpsilon: ["layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "rms_norm_eps"],
  initializerRange: ["initializer_range"],
} as const satisfies Partial<Record<keyof ModelConfig, readonly string[]>>;

/** Settings that change the mathematics, where the fixture has them: none may be other and without effect. */
const counting =
  `rope_theta rotary_emb_base rotary_pct partial_rotary_factor rms_norm_eps layer_norm_eps
  layer_norm_epsilon use_parallel_residual scale_attn_weights scale_attn_by_inverse_layer_idx rope_scaling
  rope_parameters norm_epsilon rope_local_base_freq attention_multiplier embedding_multiplier residual_multiplier
  logits_scaling query_pre_attn_scalar attn_logit_softcapping`.split(/\s+/);

export const config: Prepare = async ({ folder }) => {
  const bases: Base[] = [];
  for (const name of variants) {
    const text = await readFile(join(fixture(name), "config.json"), "utf8");
    const own = join(folder, name);
    await cp(fixture(name), own, { recursive: true });
    const opened = await openModel(own);
    const json = JSON.parse(text) as Base["json"];
    bases.push({ folder: own, text, json, graph: graphOf(opened) });
  }
  return subject<Case>({
    mutate: (random) => {
      const base = pick(random, bases);
      const bytes = () => mutateBytes(Buffer.from(base.text), random).toString("latin1");
      return { base, text: happens(random, 0.1) ? bytes() : mutateJson(base.json, random) };
    },
    check: async ({ base, text }) => {
      await lay(base.folder, { "config.json": text });
      const read = await reading([base.folder], async () => {
        const opened = await openModel(base.folder);
        return { opened, graph: graphOf(opened) };
      });
      if ("refusal" in read) return "refused";
      const { opened, graph } = read.value;
      const json = JSON.parse(text) as Base["json"];
      checkStated(opened.model.config, json);
      expect(!/null|NaN|Infinity/.test(graph), () => `a number of the graph is none: ${text}`);
      for (const key of counting)
        if (key in base.json && (json[key] ?? null) !== null && graph === base.graph)
          expect(
            isEquivalent(key, json[key], base.json[key]),
            () => `${key} is ${JSON.stringify(json[key])}, without effect`,
          );
      return graph === base.graph ? "same" : "other";
    },
  });
};

function checkStated(config: ModelConfig, json: Base["json"]): void {
  for (const [field, names] of Object.entries(stated)) {
    const name = names.find((key) => (json[key] ?? null) !== null);
    const found = config[field as keyof typeof stated];
    if (name === undefined) expect(Number.isFinite(found), () => `${field} is ${found}`);
    else expect(found === json[name], () => `${field} is ${found}, ${name} ${String(json[name])}`);
  }
}

/** What a nested object says of its type and of nothing else may be left out. */
function isEquivalent(key: string, value: unknown, untouched: unknown): boolean {
  if (typeof value === "object" || typeof untouched === "object") return true;
  return value === untouched;
}

/** The forward pass in words: ops, what they do, shapes and formats. */
function graphOf(opened: OpenedModel): string {
  const context = Math.min(8, opened.model.config.maxPositions);
  const { hidden, head } = buildForward(opened, { batchSize: 1, context });
  const order = topologicalOrder([hidden, head]);
  const places = new Map(order.map((tensor, i) => [tensor, i]));
  return order
    .map(({ op, inputs, attributes, shape, dtype }) => {
      const from = inputs.map((input) => places.get(input));
      return `${op} ${from.join()} ${JSON.stringify(attributes, plain)} ${shape.join("x")} ${dtype}`;
    })
    .join("\n");
}

const plain = (_: string, value: unknown) =>
  ArrayBuffer.isView(value)
    ? [...(value as Float32Array)].map(String).join()
    : typeof value === "number"
      ? String(value)
      : value;
