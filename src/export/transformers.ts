// What lets Python's transformers run temperatures: a file of code, the same for every model, and in config.json where
// it finds attention. docs/python.md says what it relies on.

import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { invariant } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import type { OpenedModel } from "../model/opened.ts";
import type { FamilyName } from "../models/index.ts";
import { PROJECTIONS } from "../nn/attention.ts";

/** Of every family, with its output embedding and without. */
const CLASSES: Readonly<Record<FamilyName, readonly [causal: string, inner: string]>> = {
  gpt2: ["GPT2LMHeadModel", "GPT2Model"],
  gpt_neox: ["GPTNeoXForCausalLM", "GPTNeoXModel"],
  gpt_neo: ["GPTNeoForCausalLM", "GPTNeoModel"],
  opt: ["OPTForCausalLM", "OPTModel"],
  llama: ["LlamaForCausalLM", "LlamaModel"],
  mistral: ["MistralForCausalLM", "MistralModel"],
  qwen2: ["Qwen2ForCausalLM", "Qwen2Model"],
  qwen3: ["Qwen3ForCausalLM", "Qwen3Model"],
  smollm3: ["SmolLM3ForCausalLM", "SmolLM3Model"],
  phi3: ["Phi3ForCausalLM", "Phi3Model"],
  granite: ["GraniteForCausalLM", "GraniteModel"],
  olmo2: ["Olmo2ForCausalLM", "Olmo2Model"],
  gemma2: ["Gemma2ForCausalLM", "Gemma2Model"],
  gemma3_text: ["Gemma3ForCausalLM", "Gemma3TextModel"],
  starcoder2: ["Starcoder2ForCausalLM", "Starcoder2Model"],
};

const CODE = "modeling_ssa";

/** The code that the keys of `codeConfig` name. */
export const writeCode = (folder: string) =>
  copyFile(join(import.meta.dirname, `${CODE}.py`), join(folder, `${CODE}.py`));

/** What config.json says besides of a model with temperatures. */
export function codeConfig({ model, temperatures, configJson }: OpenedModel): JsonObject {
  const [causal, inner] = CLASSES[configJson["model_type"] as FamilyName].map(
    (name) => `Ssa${name}`,
  );
  const { numHeads, numKeyValueHeads, headDim, hiddenSize } = model.config;
  const { names, split, norms, windows } = model.attention;
  invariant(split === "modules" || !norms, "norms of parts of a module");
  // The last module that makes each.
  const places =
    split === "modules"
      ? PROJECTIONS.map((projection, i) => [norms?.names[i] ?? names[i], [projection]])
      : [[names[0], PROJECTIONS]];
  const [prefix, ...path] = model.attentionPrefix(0).split(".");
  return {
    architectures: [causal],
    auto_map: { AutoModel: `${CODE}.${inner}`, AutoModelForCausalLM: `${CODE}.${causal}` },
    ssa: {
      prefix,
      attention: path.map((word) => (word === "0" ? "{}" : word)).join("."),
      places: Object.fromEntries(places) as JsonObject,
      interleaved: split === "heads",
      heads: { query: numHeads, key: numKeyValueHeads, value: numKeyValueHeads },
      head_dim: headDim,
      hidden_size: hiddenSize,
      windows,
      temperatures: temperatures!.insertion.spec,
    },
  };
}

/** A config without these keys, as the base has it. */
export function plainConfig(config: JsonObject): JsonObject {
  const { ssa, auto_map: _, architectures, ...rest } = config;
  if (ssa === undefined) return config;
  return { architectures: [architectures].flat().map((name) => String(name).slice(3)), ...rest };
}
