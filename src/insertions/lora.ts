// LoRA (Hu et al., 2021) as an insertion: y + s · B A x beside a linear layer's y, of a small rank R, in PEFT's names
// and files. B = batch, T = sequence, D = features in, F = features out

import { UserError } from "../core/errors.ts";
import { isRecord, shown } from "../core/json.ts";
import { sizeOf, type Shape } from "../core/shape.ts";
import { add, cast, matMul } from "../graph/build.ts";
import type { Folding, HookContext, Host, Insertion, Parameter, Values } from "./insertion.ts";

export interface LoraSpec {
  /** s = alpha / R, or alpha / √R where it is stabilized (Kalajdzievski, 2023). */
  readonly alpha: number;
  readonly isStabilized: boolean;
  /** R of each module that has it. */
  readonly ranks: Readonly<Record<string, number>>;
}

/** What a recipe calls sets of linear layers: those below attention, and all but the output embedding. */
export const LORA_MODULES = ["attention", "all-linear"] as const;

export interface LoraChoice {
  readonly rank: number;
  readonly alpha: number;
  /** These sets, or names of modules from any dot on. */
  readonly modules: readonly string[];
}

const PARAMETER = /^(.*)\.lora_([AB])\.weight$/;

export const lora = {
  word: "LoRA",
  owns: (tensor: string) => PARAMETER.test(tensor),
  prefix: "base_model.model.",
  baseKeys: { name: "base_model_name_or_path", revision: "revision" },
  of: (given: LoraSpec): Insertion => {
    // In one order, whichever its names came in.
    const ranks = Object.entries(given.ranks).sort(([a], [b]) => (a < b ? -1 : 1));
    const spec = { ...given, ranks: Object.fromEntries(ranks) };
    return {
      spec,
      isConstant: true,
      changes: [],
      toJson: (host) => toJson(spec, host),
      parameters: (host) => new Map(sites(spec, host).flatMap(({ parameters }) => parameters)),
      describe: (host) => describe(spec, sites(spec, host)),
      hooks: (host, context) => hooks(spec, host, context),
      fold: (host, values) => fold(spec, host, values),
    };
  },
  /** What a recipe asks for, of a model's linear layers. */
  choose: (host: Host, choice: LoraChoice): Insertion => {
    const ranks = Object.fromEntries(chosen(host, choice).map((module) => [module, choice.rank]));
    return lora.of({ alpha: choice.alpha, isStabilized: false, ranks });
  },
  /** PEFT's; the tensors say which modules have it, and their ranks. */
  fromJson: (path: string, json: unknown, tensors: ReadonlyMap<string, Shape>): Insertion =>
    lora.of(specFromJson(path, json, tensors)),
};

/** From any dot of a module's name on. */
const endsWith = (module: string, end: string) => module === end || module.endsWith(`.${end}`);

function chosen({ config, linears, attentionPrefix }: Host, { modules }: LoraChoice): string[] {
  const all = [...linears.keys()];
  const layers = Array.from({ length: config.numLayers }, (_, i) => `${attentionPrefix(i)}.`);
  const isOf = (module: string, end: string) =>
    end === "all-linear" ||
    (end === "attention" && layers.some((prefix) => module.startsWith(prefix))) ||
    endsWith(module, end);
  const unknown = modules.find((end) => !all.some((module) => isOf(module, end)));
  if (unknown === undefined)
    return all.filter((module) => modules.some((end) => isOf(module, end)));
  const names = new Set(all.map((module) => module.split(".").at(-1)!));
  throw new UserError(`lora.modules: the model has no linear layer "${unknown}"`, {
    hint: `it has ${[...names].join(", ")}; or take ${LORA_MODULES.join(" or ")}`,
  });
}

type Site = ReturnType<typeof sites>[number];

/** Every linear layer that has it, in the order of the forward pass. */
function sites({ ranks, alpha, isStabilized }: LoraSpec, { linears }: Host) {
  return [...linears].flatMap(([module, [D, F]]) => {
    const rank = Object.hasOwn(ranks, module) ? ranks[module]! : 0;
    if (rank === 0) return [];
    const names = { A: `${module}.lora_A.weight`, B: `${module}.lora_B.weight` };
    // PEFT's initial values: Kaiming's uniform ones with a = √5, which are within 1 / √D, and zeros.
    const uniform: Parameter["initial"] = (random) => (2 * random.uniform() - 1) / Math.sqrt(D);
    const A: Parameter = { shape: [rank, D], initial: uniform };
    const B: Parameter = { shape: [F, rank], initial: () => 0 };
    const parameters = [[names.A, A] as const, [names.B, B] as const];
    const scale = alpha / (isStabilized ? Math.sqrt(rank) : rank);
    return [{ module, rank, names, parameters, scale, D, F }];
  });
}

function describe({ ranks }: LoraSpec, all: readonly Site[]) {
  const words = new Set(all.map(({ module }) => module.split(".").at(-1)!));
  const shapes = all.flatMap(({ parameters }) => parameters.map(([, { shape }]) => sizeOf(shape)));
  const form = `rank ${[...new Set(Object.values(ranks))].join(", ")} of ${[...words].join(", ")}`;
  const parameters = shapes.reduce((sum, size) => sum + size, 0);
  return [{ place: "LoRA", form, extent: `${all.length} linear layers`, parameters }];
}

/** Computed and added in F32, so that the gradients of A and B are; a layer without it passes untouched. */
function hooks(spec: LoraSpec, host: Host, { parameter }: HookContext) {
  const byModule = new Map(sites(spec, host).map((site) => [site.module, site]));
  const linear: ReturnType<Insertion["hooks"]>["linear"] = (module, x_BTD, y_BTF) => {
    const site = byModule.get(module);
    if (!site) return y_BTF;
    const { names, scale: alpha } = site;
    const inner_BTR = matMul(cast(x_BTD, "F32"), parameter(names.A), { transposeB: true });
    const change_BTF = matMul(inner_BTR, parameter(names.B), { transposeB: true, alpha });
    return cast(add(cast(y_BTF, "F32"), change_BTF), y_BTF.dtype);
  };
  return { linear };
}

/** W + s · B A, which is always possible. */
function fold(spec: LoraSpec, host: Host, values: Values): Folding {
  const changes = sites(spec, host).map(({ module, names, rank, scale, D, F }) => {
    const change = (weight: Float32Array) => {
      const [A, B] = [values.get(names.A)!, values.get(names.B)!];
      const [stepD, stepF] = host.layout === "FD" ? [1, D] : [F, 1];
      const row = new Float64Array(D);
      for (let f = 0; f < F; f++) {
        row.fill(0);
        for (let r = 0; r < rank; r++)
          for (let d = 0; d < D; d++) row[d]! += B[f * rank + r]! * A[r * D + d]!;
        for (let d = 0; d < D; d++) weight[f * stepF + d * stepD]! += scale * row[d]!;
      }
    };
    return { name: `${module}.weight`, change };
  });
  return { changes, rest: null };
}

/** PEFT's adapter_config.json, without the `base_model_*` fields. */
function toJson({ alpha, isStabilized, ranks }: LoraSpec, host: Host) {
  const others = [...host.linears.keys()].filter((module) => !Object.hasOwn(ranks, module));
  // As PEFT matches them: the shortest end of the name that no other linear layer has.
  const targets = Object.keys(ranks).map((module) => {
    const words = module.split(".");
    const ends = words.map((_, i) => words.slice(-1 - i).join("."));
    return ends.find((end) => !others.some((other) => endsWith(other, end)));
  });
  const [r] = Object.values(ranks);
  return {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    r,
    lora_alpha: alpha,
    lora_dropout: 0,
    use_rslora: isStabilized,
    bias: "none",
    // GPT-2's Conv1D keeps its weights as [in, out].
    fan_in_fan_out: host.layout === "DF",
    inference_mode: true,
    target_modules: [...new Set(targets)],
    rank_pattern: Object.fromEntries(Object.entries(ranks).filter(([, rank]) => rank !== r)),
  };
}

const isOff = (value: unknown) =>
  !value || value === "none" || (typeof value === "object" && Object.keys(value).length === 0);
/** In PEFT's config, off: it would be another method, or more than A and B. */
const OFF =
  /^(use_dora|(lora_)?bias|modules_to_save|alpha_pattern|layer_replication|trainable_token_indices|target_parameters)$/;
/** Initial values that change the base's weights as well. */
const CHANGES_BASE = /^(pissa|olora|loftq|corda|lora_ga)/i;

function specFromJson(path: string, json: unknown, tensors: ReadonlyMap<string, Shape>): LoraSpec {
  const record = isRecord(json) ? json : {};
  const isOther = (key: string) =>
    (key === "init_lora_weights" && CHANGES_BASE.test(String(record[key]))) ||
    (OFF.test(key) && !isOff(record[key]));
  const isLora = record["peft_type"] === "LORA";
  const other = isLora ? Object.keys(record).find(isOther) : "peft_type";
  if (other)
    throw new UserError(`${path}: ${other} ${shown(record[other])} is not supported`, {
      hint: "LoRA of linear layers is; or merge it in Python: merge_and_unload(), save_pretrained(FOLDER)",
    });
  const { r = 8, lora_alpha: alpha = 8, rank_pattern: pattern } = record;
  if (typeof alpha !== "number" || !Number.isFinite(alpha))
    throw new UserError(`${path}: "lora_alpha" must be a number, found ${shown(alpha)}`);
  const known = [r, ...Object.values(isRecord(pattern) ? pattern : {})];
  const ranks = [...tensors].flatMap(([name, shape]) => {
    const [, module = "", which] = PARAMETER.exec(name) ?? [];
    if (which !== "A") return [];
    const rank = Number(shape[0]);
    if (known.includes(rank)) return [[module, rank] as const];
    throw new UserError(`${path}: rank ${shown(r)} is not that of ${name}, ${rank}`);
  });
  const isStabilized = record["use_rslora"] === true;
  return { alpha, isStabilized, ranks: Object.fromEntries(ranks) };
}
