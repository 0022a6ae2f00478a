// What the CUDA provider needs, told from its file: against libraries of the same names, linked in the same way, made by a compiler.

import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { existsSync, lstatSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import type { CudaReport } from "../../src/engines/onnxruntime/cuda-libraries.ts";
import { cudaProvider, surveyCuda } from "../../src/engines/onnxruntime/cuda-libraries.ts";
import { obstacleOf, withoutProvider } from "../../src/engines/onnxruntime/provider-reasons.ts";
import { sharedFolder } from "../helpers.ts";

const isHere = process.platform === "linux" && process.arch === "x64";
const hasCompiler = spawnSync("cc", ["--version"]).status === 0;
const skip = isHere ? (hasCompiler ? false : "no C compiler") : "CUDA is for Linux x64";
const folder = sharedFolder();

// Names that no machine has installed: the loader must not find real ones.
const [blas, runtime] = ["libcublas.so.97", "libcudart.so.97"];

/** A shared library that is linked to others and calls a function of each. */
function library(path: string, name: string, linked: readonly string[] = []): void {
  mkdirSync(join(path, ".."), { recursive: true });
  const calls = linked.map((other) => basename(other).replace(/\W/g, "_"));
  const source = `${path}.c`;
  writeFileSync(
    source,
    `${calls.map((call) => `int ${call}(void);`).join("")}
     int ${name.replace(/\W/g, "_")}(void) { return 1${calls.map((c) => ` + ${c}()`).join("")}; }`,
  );
  const made = spawnSync("cc", [
    "-shared",
    "-fPIC",
    `-Wl,-soname,${name}`,
    "-o",
    path,
    source,
    ...linked,
  ]);
  assert.equal(made.status, 0, String(made.stderr));
}

/** Examines a provider in a process of its own, since what is loaded stays; then loads the provider. */
async function examine(provider: string, env: Readonly<Record<string, string>> = {}) {
  const module = new URL("../../src/engines/onnxruntime/cuda-libraries.ts", import.meta.url);
  const script = `import { examineCuda, preload } from "${module.href}";
    const report = examineCuda(${JSON.stringify(provider)});
    console.log(JSON.stringify({ report, complaint: preload(${JSON.stringify(provider)}) }));`;
  const args = ["--import", "tsx", "--input-type=module", "--eval", script];
  const { stdout } = await promisify(execFile)(process.execPath, args, {
    env: { ...process.env, ...env },
  });
  return JSON.parse(stdout) as { report: CudaReport; complaint: string | null };
}

test(
  "each library is named with its wheel and apt package, found, and loaded ahead",
  { skip },
  async () => {
    const wheels = join(folder, "site", "nvidia", "cu97", "lib");
    const provider = join(folder, "libprovider.so");
    const files = [blas, runtime].map((name) => join(wheels, name));
    for (const file of files) library(file, basename(file));
    library(provider, "libprovider.so", files);

    const bare = await examine(provider);
    assert.deepEqual(
      bare.report.libraries.map(({ file, path, wheel, apt }) => ({ file, path, wheel, apt })),
      [
        { file: blas, path: null, wheel: "nvidia-cublas", apt: "libcublas-97-0" },
        { file: runtime, path: null, wheel: "nvidia-cuda-runtime", apt: "cuda-cudart-97-0" },
      ],
    );
    assert.match(bare.complaint!, /libcublas\.so\.97: cannot open/);
    const value = {
      precisions: [],
      usesHardware: false,
      error: "",
      missing: bare.report.libraries,
    };
    const obstacle = obstacleOf({ value, stderr: "", ending: "exit code 0" })!;
    assert.match(obstacle.reason, /libcublas\.so\.97, libcudart\.so\.97 cannot be loaded/);
    assert.match(obstacle.hint, /pip install nvidia-cublas nvidia-cuda-runtime,/);

    // Where a Python has them, and where the loader's own variable (the CLI puts SSA_CUDA_PATH there) has them.
    if (spawnSync("python3", ["--version"]).status === 0) {
      const { report, complaint } = await examine(provider, { PYTHONPATH: join(folder, "site") });
      assert.deepEqual([report.libraries.map(({ path }) => path), complaint], [files, null]);
    }
    const { report, complaint } = await examine(provider, { LD_LIBRARY_PATH: wheels });
    assert.deepEqual([report.libraries.map(({ path }) => path), complaint], [files, null]);
  },
);

test("a damaged library is told from a missing one", { skip }, async () => {
  const broken = join(folder, "site2", "torch", "lib");
  const provider = join(folder, "libprovider2.so");
  library(join(broken, blas), blas);
  library(provider, "libprovider2.so", [join(broken, blas)]);
  writeFileSync(join(broken, blas), "no library");
  const { report } = await examine(provider, { PYTHONPATH: join(folder, "site2") });
  assert.equal(report.libraries[0]!.path, null);
  assert.match(report.libraries[0]!.problem!, /file too short|invalid ELF/);
});

test("without a provider the libraries of onnxruntime-node's own are listed", async () => {
  const report = await surveyCuda();
  if (!isHere) return assert.equal(report, null);
  assert.equal(report!.provider, existsSync(cudaProvider()) ? cudaProvider() : null);
  const files = report!.libraries.map(({ file }) => file);
  for (const file of [
    /^libcublas\.so\.1\d$/,
    /^libcublasLt\.so/,
    /^libcudart\.so/,
    /^libcuda\.so\.1$/,
  ])
    assert.ok(
      files.some((each) => file.test(each)),
      `${file} in ${files.join(" ")}`,
    );
});

test(
  "npm's package with the provider is taken where it is for the same ONNX Runtime",
  { skip },
  () => {
    const modules = join(folder, "node_modules");
    const home = join(modules, "onnxruntime-node");
    mkdirSync(join(home, "bin/napi-v6/linux/x64"), { recursive: true });
    mkdirSync(join(home, "dist"));
    writeFileSync(join(home, "package.json"), JSON.stringify({ version: "1.29.0" }));
    const at = pathToFileURL(join(home, "dist", "index.js")).href;
    assert.match(withoutProvider(at)!.reason, /not installed/);

    const carrier = join(modules, "com.github.asus4.onnxruntime.linux-x64-gpu");
    const libraries = join(carrier, "Plugins/Linux/x64");
    mkdirSync(libraries, { recursive: true });
    writeFileSync(join(libraries, "libonnxruntime_providers_shared.so"), "");
    writeFileSync(join(libraries, "libonnxruntime_providers_cuda.so"), "\u{0}1.28.0\u{0}");
    assert.match(withoutProvider(at)!.reason, /is not for onnxruntime-node 1\.29\.0/);

    writeFileSync(join(libraries, "libonnxruntime_providers_cuda.so"), "\u{0}1.29.0\u{0}");
    assert.equal(withoutProvider(at), undefined);
    assert.ok(lstatSync(cudaProvider(at)).isSymbolicLink());
    assert.equal(withoutProvider(at), undefined);
  },
);
