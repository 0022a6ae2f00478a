// The families, by the `model_type` of config.json: what these files export, a row each.

import type { Family } from "./family.ts";
import * as gpt from "./gpt-families.ts";
import * as llama from "./llama-families.ts";

export const families: Readonly<Record<string, Family>> = { ...gpt, ...llama };
