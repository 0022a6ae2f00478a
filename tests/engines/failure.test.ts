// What engines and drivers say when they fail, and what is free on a card.

import assert from "node:assert/strict";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { failureOf } from "../../src/engines/failure.ts";
import { cardFree } from "../../src/engines/onnxruntime/cuda-libraries.ts";
import { temporaryFolder } from "../helpers.ts";

const short = [
  "std::bad_alloc",
  "bad allocation",
  "Array buffer allocation failed",
  "Worker terminated due to reaching memory limit: JS heap out of memory",
  "Non-zero status code returned while running MatMul node. Name:'MatMul_12' Status Message: " +
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) " +
    "Failed to allocate memory for requested buffer of size 3221225472",
  "bfc_arena.cc:342 Available memory of 1024 is smaller than requested bytes of 4096",
  "CUDA failure 2: out of memory ; GPU=0 ; hostname=host ; expr=cudaMalloc(&p, size);",
  "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(handle);",
  "vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY",
  "Buffer size (5368709120) exceeds the max buffer size limit (4294967296).",
  "D3D12 create committed resource failed with E_OUTOFMEMORY (0x8007000E)",
  "OOM when allocating tensor with shape[8,1024,50257] and type float on /device:GPU:0",
];
const gone = [
  "CUDA failure 999: unknown error ; GPU=0",
  "CUDA failure 719: unspecified launch failure",
  "Device is lost: vkQueueSubmit failed with VK_ERROR_DEVICE_LOST",
  "887A0005: the GPU device instance has been suspended",
  "its thread ended with code 1",
];

test("what says that memory is short is told from what says that a device is gone", () => {
  for (const said of short) assert.equal(failureOf(said).isOutOfMemory, true, said);
  for (const said of gone) assert.equal(failureOf(said).isOutOfMemory, false, said);
  const { message, exitCode } = failureOf("first line\nsecond line");
  assert.deepEqual([message, exitCode], ["ONNX Runtime: first line", 1]);
});

const skip = process.platform === "win32" && "a script stands in for nvidia-smi";

test("free memory of the card that CUDA counts so is nvidia-smi's", { skip }, async (t) => {
  const folder = await temporaryFolder(t);
  const script = join(folder, "nvidia-smi");
  // Card n has 1000 + n MiB; the card of number 9 is unknown.
  const answers = `case "$*" in
*--id=9*) echo "No devices were found"; exit 6 ;;
*--query-gpu=memory.free*nounits*) id=\${1#--id=}; echo "$((1000 + id))" ;;
esac`;
  await writeFile(script, `#!/bin/sh\n${answers}\n`);
  await chmod(script, 0o755);
  const { PATH } = process.env;
  t.after(() => (process.env["PATH"] = PATH));
  process.env["PATH"] = `${folder}:${PATH}`;
  const mebibytes = async (...card: [number?: string, visible?: string]) =>
    ((await cardFree(...card)) ?? NaN) / 2 ** 20;
  assert.equal(await mebibytes(), 1000);
  assert.equal(await mebibytes("1"), 1001);
  assert.equal(await mebibytes("1", "4, 7"), 1007);
  assert.equal(await mebibytes("9"), NaN);
  process.env["PATH"] = folder.slice(0, -1);
  assert.equal(await mebibytes(), NaN);
});
