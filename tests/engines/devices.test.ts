// Devices: what is missing is said with its reason and never replaced; auto takes the fastest that works, and a
// software adapter only when asked for by name.

import assert from "node:assert/strict";
import { exec } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { type DeviceReport, expectDevice } from "../../src/engines/index.ts";
import { openEngine, surveyDevices } from "../../src/engines/index.ts";
import { holdsHardware } from "../../src/engines/onnxruntime/probe.ts";
import { cudaNotInstalled, obstacleOf } from "../../src/engines/onnxruntime/provider-reasons.ts";
import { runWithVulkan, skipWithoutVulkan } from "../software-vulkan.ts";

const threads = 1;

test("an unknown device is a usage error that lists the known ones, when it is opened", async () => {
  expectDevice("gpu");
  for (const _ of ["expected", "not"])
    await assert.rejects(
      openEngine("gpu", { threads }),
      (error) =>
        error instanceof UserError && error.exitCode === 2 && /auto, cpu, cuda/.test(error.hint!),
    );
});

test("every device is chosen, available, or absent for a reason with a next step", async (t) => {
  const reports = await surveyDevices();
  for (const { device, reason, hint } of reports)
    t.diagnostic(`${device}: ${reason}${hint ? ` (${hint})` : ""}`);
  assert.equal(reports.filter(({ isChosen }) => isChosen).length, 1);
  assert.ok(reports.find(({ device }) => device === "cpu")!.isAvailable);
  for (const { device, isAvailable, reason, hint } of reports) {
    assert.ok(reason.length > 0, device);
    if (isAvailable) continue;
    assert.ok(hint, `${device} has no next step`);
    await assert.rejects(openEngine(device, { threads }), (error) => {
      assert.ok(error instanceof UserError);
      assert.equal(error.message, `device ${device} cannot serve: ${reason}`);
      assert.equal(error.hint, hint);
      return true;
    });
  }
});

test("auto tells what it chose and why not the others, whether or not it was expected", async () => {
  let told: readonly DeviceReport[] = [];
  const open = async () => {
    const engine = await openEngine("auto", { threads, onChoice: (reports) => (told = reports) });
    await engine.dispose();
    return engine;
  };
  await open();
  const before = told;
  expectDevice("auto");
  const engine = await open();
  assert.notEqual(told, before);
  assert.deepEqual(told, before);
  assert.deepEqual(
    told.map(({ device }) => device),
    ["cuda", "webgpu", "dml", "coreml", "cpu"],
  );
  const chosen = told.findIndex(({ isChosen }) => isChosen);
  assert.ok(engine.description.startsWith(told[chosen]!.device));
  for (const { isAvailable, reason } of told.slice(chosen + 1)) {
    assert.equal(isAvailable, null);
    assert.equal(reason, `slower than ${told[chosen]!.device}`);
  }
});

test(
  "a software adapter serves when asked for, and auto passes it over",
  { skip: skipWithoutVulkan },
  async () => {
    const engines = new URL("../../src/engines/index.ts", import.meta.url).href;
    const script = `
      const { openEngine, surveyDevices } = await import("${engines}");
      const engine = await openEngine("webgpu", { threads: 1 });
      const { description } = engine;
      await engine.dispose();
      console.log(JSON.stringify({ description, reports: await surveyDevices() }));`;
    const { code, stdout, stderr } = await runWithVulkan(["--input-type=module", "-e", script]);
    assert.equal(code, 0, stderr);
    const { description, reports } = JSON.parse(stdout) as {
      readonly description: string;
      readonly reports: readonly DeviceReport[];
    };
    assert.equal(description, "webgpu (ONNX Runtime, software adapter)");
    const webgpu = reports.find(({ device }) => device === "webgpu")!;
    assert.deepEqual([webgpu.isAvailable, webgpu.isChosen], [true, false]);
    assert.match(webgpu.reason, /software adapter/);
  },
);

const sayings: readonly (readonly [said: string, reason: RegExp])[] = [
  [
    "Failed to load library /x/libonnxruntime_providers_shared.so with error: /x/libonnxruntime_providers_shared.so: cannot open shared object file",
    /CUDA library is not installed/,
  ],
  [
    "Failed to load library libonnxruntime_providers_cuda.so with error: libcudnn.so.9: cannot open shared object file",
    /^libcudnn\.so\.9 is missing$/,
  ],
  ["CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", /driver/],
  ["CUDA failure 100: no CUDA-capable device is detected", /no NVIDIA GPU/],
  ["CUDA failure 101: invalid device ordinal", /no GPU of that number/],
  ["Warning: vkCreateInstance: Found no drivers!", /no Vulkan driver/],
  ["Failed to get a WebGPU adapter: No supported adapters", /no GPU adapter/],
  ["some nodes were assigned to the default CPU EP", /kernels/],
  ["something new\nwith details", /^something new$/],
];

test("what libraries and drivers say is put in words", () => {
  for (const [said, reason] of sayings) {
    const value = { error: said, precisions: [], usesHardware: false };
    const obstacle = obstacleOf({ value, stderr: "", ending: "exit code 0" })!;
    assert.match(obstacle.reason, reason);
    assert.ok(obstacle.hint.length > 0);
  }
  const crashed = obstacleOf({ stderr: "driver assertion\n", ending: "SIGSEGV" })!;
  assert.match(crashed.reason, /crashed or hung \(SIGSEGV\)/);
  const value = { precisions: ["fp32"] as const, usesHardware: true };
  assert.equal(obstacleOf({ value, stderr: "a warning", ending: "exit code 0" }), undefined);
});

test("hardware is told from software by what its driver holds", () => {
  const swiftShader = ["/dev/null", "/memfd:swiftshader_jit (deleted)"];
  assert.equal(holdsHardware("linux", swiftShader, []), false);
  for (const file of ["/dev/dri/renderD128", "/dev/nvidiactl", "/dev/dxg", "/dev/kgsl-3d0"])
    assert.equal(holdsHardware("linux", [...swiftShader, file], []), true, file);
  const warp = ["C:\\Windows\\System32\\d3d12.dll", "C:\\Windows\\System32\\d3d10warp.dll"];
  const driver =
    "C:\\Windows\\System32\\DriverStore\\FileRepository\\nv.inf_amd64_1\\nvwgf2umx.dll";
  assert.equal(holdsHardware("win32", [], warp), false);
  assert.equal(holdsHardware("win32", [], [...warp, driver]), true);
  assert.equal(holdsHardware("darwin", [], []), true);
});

// As far as it goes without a network: what is printed runs, and asks for the file that is missing.
test(
  "the hint for CUDA is a command that downloads, whatever npm does with install scripts",
  {
    skip: process.platform !== "linux" || process.arch !== "x64" ? "CUDA is for Linux x64" : false,
  },
  async (t) => {
    const proxy = createServer();
    const asked: string[] = [];
    proxy.on("connect", ({ url }, socket) => {
      asked.push(url!);
      socket.end("HTTP/1.1 403 Forbidden\r\n\r\n");
    });
    await once(proxy.listen(0, "127.0.0.1"), "listening");
    t.after(() => proxy.close());
    const address = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    const env = { ...process.env, GLOBAL_AGENT_HTTPS_PROXY: address };
    const [code] = (await once(exec(cudaNotInstalled.hint, { env }), "exit")) as [number];
    assert.equal(code, 1);
    assert.deepEqual(
      asked.map((target) => target.split(":")[1]),
      ["443"],
    );
  },
);
