// Rotary settings in a config.json: `rope_theta` and `rope_scaling`, or both inside `rope_parameters` in newer files.
// Where both objects are there, `rope_scaling` is the one that counts, as in transformers 5.

import { UserError } from "../core/errors.ts";
import type { RotaryConfig, RotaryScaling } from "../nn/rotary.ts";
import { ConfigReader, type Key, type ModelConfig } from "./config.ts";

/** The keys are older files' names of the base frequency and, where it may be another than 1, of the share that turns. */
export function readRotary(
  config: ConfigReader,
  { headDim, maxPositions }: Pick<ModelConfig, "headDim" | "maxPositions">,
  thetaKey = "rope_theta",
  shareKey?: Key<number>,
): RotaryConfig {
  const [scaling, parameters] = [config.object("rope_scaling"), config.object("rope_parameters")];
  const nested = scaling ?? parameters ?? new ConfigReader(config.path, {});
  const theta = config.number(thetaKey, 10000);
  const share = shareKey ? config.number(...shareKey) : 1;
  for (const [key, only] of Object.entries({
    rope_theta: theta,
    partial_rotary_factor: share,
    rope_interleaved: false,
  }))
    config.only(key, only);
  if (!shareKey) nested.only("partial_rotary_factor", 1);
  const rotaryDim = Math.floor(headDim * nested.number("partial_rotary_factor", share));
  if (rotaryDim % 2 !== 0)
    throw new UserError(`${config.path}: rotary embedding of ${rotaryDim} elements, must be even`);
  const rotary = {
    rotaryDim,
    theta: nested.number("rope_theta", theta),
    scaling: readScaling(nested, config, maxPositions),
  };
  nested.refuseUnread();
  return rotary;
}

function readScaling(
  nested: ConfigReader,
  config: ConfigReader,
  maxPositions: number,
): RotaryScaling {
  const type = nested.text("rope_type", nested.text("type", "default"));
  const original = "original_max_position_embeddings";
  switch (type) {
    case "default":
      return { type: "none" };
    case "dynamic":
      nested.number("factor", 1); // changes nothing within the trained length, and windows never exceed it
      return { type: "none" };
    case "linear":
      return { type, factor: nested.number("factor") };
    case "llama3":
      return {
        type,
        factor: nested.number("factor"),
        lowFrequencyFactor: nested.number("low_freq_factor"),
        highFrequencyFactor: nested.number("high_freq_factor"),
        // Beside the object it wins.
        originalMaxPositions: config.count(original, nested.count(original, maxPositions)),
      };
    default:
      throw new UserError(`${nested.path}: rope type "${type}" is not supported`, {
        hint: "supported: default, linear, dynamic, llama3",
      });
  }
}
