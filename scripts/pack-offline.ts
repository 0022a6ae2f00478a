// `npm run pack:offline -- OUT`: an archive with Node.js, the built package and what it runs on, for a machine that has
// none of them, nor a network. docs/offline.md says how it is used; tests/offline.sh tries one.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { keepGenerations } from "./gpu-generations.ts";

const usage = `usage: npm run pack:offline -- [options] OUT

OUT is the folder for the archive, its checksum and install.sh.

  --target linux-x64       what the machine is: linux-x64 or linux-arm64 (default: this one)
  --node FILE              the target's Node.js (default: the one that runs this)
  --cuda                   with ONNX Runtime's CUDA provider, for CUDA 13 and linux-x64; it and the ONNX Runtime
                           that goes with it are fetched from npm
  --generation 90          of it only what GPUs of this compute capability run, a quarter of the size (repeat for more)
  --xz                     .tar.xz in place of .tar.gz: smaller; needs xz on both machines`;

/** ELF's numbers of the processors that an archive can be for. */
const targets: Readonly<Record<string, number>> = { "linux-x64": 62, "linux-arm64": 183 };

/** The npm package with ONNX Runtime's CUDA provider, and the version of ONNX Runtime that it is of. */
const CUDA = { carrier: "com.github.asus4.onnxruntime.linux-x64-gpu@0.4.9", runtime: "1.29.0" };

class Refusal extends Error {}

function main(): void {
  const { values, positionals } = parseArgs({
    options: {
      target: { type: "string", default: `${process.platform}-${process.arch}` },
      node: { type: "string", default: process.execPath },
      cuda: { type: "boolean", default: false },
      generation: { type: "string", multiple: true, default: [] },
      xz: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  if (values.help) return console.log(usage);
  const { target, node, cuda, xz } = values;
  const generations = values.generation.map(Number);
  const [out, ...others] = positionals;
  if (out === undefined || others.length > 0) throw new Refusal(usage);
  if (!targets[target])
    throw new Refusal(`--target ${target}: linux-x64 or linux-arm64 is expected`);
  if (cuda && target !== "linux-x64")
    throw new Refusal("--cuda: NVIDIA's libraries are for linux-x64");
  if (generations.length > 0 && !cuda)
    throw new Refusal("--generation says what of --cuda is kept");
  if (!generations.every((each) => Number.isInteger(each) && each >= 50))
    throw new Refusal(
      "--generation: a compute capability without its point is expected, 90 for 9.0",
    );
  checkNode(node, target);

  const root = resolve(import.meta.dirname, "..");
  if (!fs.existsSync(join(root, "dist/cli/main.js")))
    throw new Refusal("dist/ is not there: npm run build makes it");
  const { version } = readJson(join(root, "package.json")) as { version: string };
  const name = `ssa-${version}-${target}${cuda ? "-cuda" : ""}`;
  const work = fs.mkdtempSync(join(tmpdir(), "ssa-pack-"));
  try {
    const folder = join(work, name);
    writeFolder(folder, root, node, target);
    if (cuda) addCuda(join(folder, "lib/ssa/node_modules"), work, generations);
    const archive = join(resolve(out), `${name}.tar.${xz ? "xz" : "gz"}`);
    fs.mkdirSync(out, { recursive: true });
    const compress = xz ? "xz -T0 -6" : "gzip -6";
    const shape = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    run("tar", [...shape, "-I", compress, "-cf", `${archive}.part`, "-C", work, name]);
    fs.renameSync(`${archive}.part`, archive);
    const sum = createHash("sha256").update(fs.readFileSync(archive)).digest("hex");
    fs.writeFileSync(`${archive}.sha256`, `${sum}  ${archive.split("/").at(-1)}\n`);
    fs.copyFileSync(join(import.meta.dirname, "install.sh"), join(out, "install.sh"));
    console.log(`${archive}\n${megabytes(fs.statSync(archive).size)}, unpacked ${sizeOf(folder)}`);
    console.log(
      `sha256 ${sum}\non the machine, with the three files in one folder: sh install.sh DIR`,
    );
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

/** A program for the target that needs none but the C and C++ libraries that every Linux has. */
function checkNode(node: string, target: string): void {
  if (!fs.existsSync(node)) throw new Refusal(`--node ${node}: there is no such file`);
  const header = Buffer.alloc(20);
  const file = fs.openSync(node, "r");
  fs.readSync(file, header);
  fs.closeSync(file);
  if (header.toString("latin1", 1, 4) !== "ELF" || header.readUInt16LE(18) !== targets[target])
    throw new Refusal(
      `${node} is not a program for ${target}: name the target's Node.js with --node`,
    );
  if (target !== `${process.platform}-${process.arch}`) return;
  const version = run(node, ["--version"]).trim();
  const [major = 0, minor = 0] = version.slice(1).split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19))
    throw new Refusal(`${node} is ${version}: Node.js 20.19 or newer is needed`);
  const foreign = run("ldd", [node]).match(/lib(?:node|v8|uv|icu\w*|ssl|crypto)\.so\S*/);
  if (foreign)
    throw new Refusal(
      `${node} needs ${foreign[0]}, which another machine may lack: name a Node.js from nodejs.org with --node`,
    );
}

/** bin/ssa, bin/node, and lib/ssa with the package as npm would pack it and its production packages. */
function writeFolder(folder: string, root: string, node: string, target: string): void {
  const app = join(folder, "lib/ssa");
  const copy = (from: string, to: string) =>
    fs.cpSync(from, to, { recursive: true, filter: isOfUse });
  const isOfUse = (path: string) =>
    !/\.(?:map|d\.[cm]?ts|md|flow)$|\/dist\/transformers\.(?:web\.|min|js$|node\.min|node\.cjs)/.test(
      path,
    );
  const packed = JSON.parse(
    run("npm", ["pack", "--dry-run", "--ignore-scripts", "--json"], root),
  ) as [{ files: { path: string }[] }];
  // Its own pages come along, which hints of errors name; of other packages none.
  for (const { path } of packed[0].files)
    if (/\.(?:md|png)$/.test(path)) fs.cpSync(join(root, path), join(app, path));
    else copy(join(root, path), join(app, path));
  fs.symlinkSync("lib/ssa/README.md", join(folder, "README.md"));

  // The web build, the libraries of other platforms, and the image library are never called.
  const modules = fs.realpathSync(join(root, "node_modules"));
  for (const line of run("npm", ["ls", "--omit=dev", "--all", "--parseable"], root).split("\n")) {
    const [, path] = /\/node_modules\/(.*)/.exec(line) ?? [];
    if (
      path &&
      !/^(?:onnxruntime-web|sharp|@img)(?:\/|$)/.test(path) &&
      !path.includes("/node_modules/")
    )
      copy(join(modules, path), join(app, "node_modules", path));
  }
  const natives = join(app, "node_modules/onnxruntime-node/bin/napi-v6");
  keepOnly(natives, target.split("-"));
  if (fs.readdirSync(natives).length === 0)
    throw new Refusal(`the installed onnxruntime-node has nothing for ${target}`);
  const sharp = join(app, "node_modules/sharp");
  fs.mkdirSync(sharp);
  fs.writeFileSync(
    join(sharp, "package.json"),
    `{"name":"sharp","type":"module","main":"index.js"}`,
  );
  fs.writeFileSync(
    join(sharp, "index.js"),
    `export default () => {\n  throw new Error("images are not read");\n};\n`,
  );

  fs.mkdirSync(join(folder, "bin"));
  fs.copyFileSync(fs.realpathSync(node), join(folder, "bin/node"));
  fs.chmodSync(join(folder, "bin/node"), 0o755);
  fs.copyFileSync(join(import.meta.dirname, "ssa.sh"), join(folder, "bin/ssa"));
  fs.chmodSync(join(folder, "bin/ssa"), 0o755);
}

/** Of a tree of platforms and processors only one. */
function keepOnly(folder: string, names: readonly string[]): void {
  const [name, ...rest] = names;
  if (name === undefined || !fs.existsSync(folder)) return;
  for (const other of fs.readdirSync(folder))
    if (other !== name) fs.rmSync(join(folder, other), { recursive: true });
  keepOnly(join(folder, name), rest);
}

/** The CUDA provider, beside the ONNX Runtime of its own version: the two are not to be mixed. */
function addCuda(modules: string, work: string, generations: readonly number[]): void {
  const fetched = (spec: string) => {
    const to = fs.mkdtempSync(join(work, "npm-"));
    const [file = ""] = run("npm", ["pack", "--silent", spec], to).trim().split("\n");
    run("tar", ["-xzf", file], to);
    return join(to, "package");
  };
  for (const name of ["onnxruntime-node", "onnxruntime-common"]) {
    fs.rmSync(join(modules, name), { recursive: true });
    fs.cpSync(fetched(`${name}@${CUDA.runtime}`), join(modules, name), { recursive: true });
  }
  const natives = join(modules, "onnxruntime-node/bin/napi-v6");
  keepOnly(natives, ["linux", "x64"]);
  const from = join(fetched(CUDA.carrier), "Plugins/Linux/x64");
  for (const name of ["shared", "cuda"]) {
    const file = `libonnxruntime_providers_${name}.so`;
    fs.copyFileSync(join(from, file), join(natives, "linux/x64", file));
  }
  const provider = join(natives, "linux/x64/libonnxruntime_providers_cuda.so");
  if (generations.length === 0) return;
  const { kept, found } = keepGenerations(provider, generations);
  if (kept === 0) throw new Refusal(`--generation: the CUDA provider has ${found.join(", ")}`);
}

function run(program: string, args: readonly string[], cwd = "."): string {
  return execFileSync(program, args, {
    cwd,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 28,
  });
}

const readJson = (path: string): unknown => JSON.parse(fs.readFileSync(path, "utf8"));
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
const sizeOf = (folder: string) =>
  megabytes(1024 * Number(run("du", ["-sk", folder]).split("\t")[0]));

try {
  main();
} catch (error) {
  const isUsage =
    error instanceof Refusal || (error as { code?: string }).code?.startsWith("ERR_PARSE");
  if (!isUsage) throw error;
  console.error(`error: ${(error as Error).message}`);
  process.exitCode = 2;
}
