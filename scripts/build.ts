// dist/, or another folder that is named: the program, the scripts of its two pages in one file each, and the Python code that an export brings along.

import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";

const dist = resolve(process.argv[2] ?? "dist");
process.chdir(join(import.meta.dirname, ".."));
rmSync(dist, { recursive: true, force: true });
const project = ["-p", "tsconfig.build.json", "--outDir", dist];
execFileSync("node_modules/.bin/tsc", project, { stdio: "inherit" });
await build({
  entryPoints: ["src/report/page/main.ts", "src/web/page/main.ts"],
  bundle: true,
  minify: true,
  logLevel: "warning",
  outbase: "src",
  outdir: join(dist, "src"),
  outExtension: { ".js": ".min.js" },
});
cpSync("src/export/modeling_ssa.py", join(dist, "src/export/modeling_ssa.py"));
chmodSync(join(dist, "cli/main.js"), 0o755);
