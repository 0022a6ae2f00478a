#!/usr/bin/env node
// The entry: refuses a Node.js that is too old in words that it understands, before anything newer is read.

const [major, minor] = process.versions.node.split(".").map(Number);
if (major! < 20 || (major === 20 && minor! < 19)) {
  process.stderr.write(`error: ssa needs Node.js 20.19 or newer, this is ${process.version}\n`);
  process.exitCode = 2;
} else {
  // Nothing that this program loads reports to anyone: ONNX Runtime would, and keeps a device id, unless it is told.
  process.env["ORT_DISABLE_TELEMETRY"] ??= "1";
  // ONNX Runtime's CUDA provider multiplies in TF32, ten bits of fraction, unless it is told: what a report states is F32.
  process.env["NVIDIA_TF32_OVERRIDE"] ??= "0";
  // Read by the loader in the processes that try the devices; what they found is loaded here by its path.
  const { SSA_CUDA_PATH: cuda, LD_LIBRARY_PATH: others } = process.env;
  if (cuda) process.env["LD_LIBRARY_PATH"] = others ? `${cuda}:${others}` : cuda;
  // Slurm's notice that the time is up: until a command listens itself, Node would open its debugger.
  process.on("SIGUSR1", () => process.listenerCount("SIGUSR1") === 1 && process.exit(130));
  void import("./program.ts").then(({ main }) => main());
}
