// Numbers that read well, as the report has them too.

export * from "../src/core/format.ts";
