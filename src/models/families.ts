// The families, by the `model_type` of config.json: what these files export, a row each.

import type { Family } from "./family.ts";
import * as gpt from "./gpt-families.ts";
import * as llama from "./llama-families.ts";

const rows = { ...gpt, ...llama };
export type FamilyName = keyof typeof rows;
export const families: Readonly<Record<string, Family>> = rows;
