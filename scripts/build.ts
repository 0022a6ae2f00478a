// dist/: the program, the scripts of its two pages in one file each, and the Python code that an export brings along.

import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "..");
process.chdir(root);
rmSync("dist", { recursive: true, force: true });
execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.build.json"], { stdio: "inherit" });
await build({
  entryPoints: ["src/report/page/main.ts", "src/web/page/main.ts"],
  bundle: true,
  minify: true,
  logLevel: "warning",
  outbase: "src",
  outdir: "dist/src",
  outExtension: { ".js": ".min.js" },
});
cpSync("src/export/modeling_ssa.py", "dist/src/export/modeling_ssa.py");
chmodSync("dist/cli/main.js", 0o755);
