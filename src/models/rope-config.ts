// Rotary settings in a config.json: `rope_theta` and `rope_scaling`, or both inside `rope_parameters` in newer files.

import { UserError } from "../core/errors.ts";
import type { RotaryConfig, RotaryScaling } from "../nn/rotary.ts";
import type { ConfigReader } from "./config.ts";

/** thetaKey is the older files' name of the base frequency. */
export function readRotary(
  config: ConfigReader,
  rotaryDim: number,
  thetaKey: string,
): RotaryConfig {
  if (rotaryDim % 2 !== 0)
    throw new UserError(`${config.path}: rotary embedding of ${rotaryDim} elements, must be even`);
  const parameters = config.object("rope_parameters");
  const theta = parameters?.has("rope_theta") ? parameters.number("rope_theta") : undefined;
  const scaling = parameters ?? config.object("rope_scaling");
  return {
    rotaryDim,
    theta: theta ?? config.number(thetaKey, 10000),
    scaling: scaling ? readScaling(scaling) : { type: "none" },
  };
}

function readScaling(config: ConfigReader): RotaryScaling {
  const type = config.text("rope_type", config.text("type", "default"));
  switch (type) {
    case "default":
    case "dynamic": // changes nothing within the trained length, and windows never exceed it
      return { type: "none" };
    case "linear":
      return { type: "linear", factor: config.number("factor") };
    case "llama3":
      return {
        type: "llama3",
        factor: config.number("factor"),
        lowFrequencyFactor: config.number("low_freq_factor"),
        highFrequencyFactor: config.number("high_freq_factor"),
        originalMaxPositions: config.count("original_max_position_embeddings"),
      };
    default:
      throw new UserError(`${config.path}: rope type "${type}" is not supported`, {
        hint: "supported: default, linear, dynamic, llama3",
      });
  }
}
