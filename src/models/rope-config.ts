// Rotary settings in a config.json: `rope_theta` and `rope_scaling`, or both inside `rope_parameters` in newer files.
// Where both objects are there, `rope_scaling` is the one that counts, as in transformers 5.

import { UserError } from "../core/errors.ts";
import type { RotaryConfig, RotaryScaling } from "../nn/rotary.ts";
import { type ConfigReader, configReader, type ModelConfig } from "./config.ts";

/** share: of each head that turns, where it may be another than 1 and the config does not say. */
export function readRotary(
  config: ConfigReader,
  { headDim, maxPositions }: Pick<ModelConfig, "headDim" | "maxPositions">,
  share?: number,
): RotaryConfig {
  const isSet = (key: string) => Object.keys(config.object(key, {})).length > 0;
  const [key] = ["rope_scaling", "rope_parameters"].filter(isSet);
  const nested = key
    ? configReader(`${config.path}: ${key}`, config.object(key))
    : configReader(config.path, {});
  config.only("rope_interleaved", false);
  if (share === undefined)
    for (const reader of [config, nested]) reader.only("partial_rotary_factor", 1);
  const factor = config.number("partial_rotary_factor", share ?? 1);
  const rotaryDim = Math.floor(headDim * nested.number("partial_rotary_factor", factor));
  if (rotaryDim % 2 !== 0)
    throw new UserError(`${config.path}: rotary embedding of ${rotaryDim} elements, must be even`);
  const theta = nested.number("rope_theta", config.number("rope_theta", 10000));
  const type = nested.text("rope_type", nested.text("type", "default"));
  if (!Object.hasOwn(scalings, type))
    throw new UserError(`${nested.path}: rope type "${type}" is not supported`, {
      hint: `supported: ${Object.keys(scalings).join(", ")}`,
    });
  const scaling = scalings[type]!(nested, config, maxPositions);
  nested.refuseUnread();
  return { rotaryDim, theta, scaling };
}

const ORIGINAL = "original_max_position_embeddings";

/** By type, from the object that names it and the config around that. */
const scalings: Readonly<
  Record<string, (own: ConfigReader, config: ConfigReader, maxPositions: number) => RotaryScaling>
> = {
  default: () => ({ type: "none" }),
  linear: (own) => ({ type: "linear", factor: own.number("factor") }),
  // Changes nothing within the trained length, and windows never exceed it.
  dynamic: (own) => {
    own.number("factor", 1);
    return { type: "none" };
  },
  llama3: (own, config, maxPositions) => ({
    type: "llama3",
    factor: own.number("factor"),
    lowFrequencyFactor: own.number("low_freq_factor"),
    highFrequencyFactor: own.number("high_freq_factor"),
    originalMaxPositions: config.count(ORIGINAL, own.count(ORIGINAL, maxPositions)),
  }),
};
