// The cost model on machines that are not at hand: a step's floor by published rates, and what data parallelism adds.

import { type OpenedModel, countParameters } from "../src/model/opened.ts";
import { topologicalOrder } from "../src/graph/tensor.ts";
import { estimate } from "../src/engines/onnxruntime/estimate.ts";
import { buildTrainingGraph } from "../src/train/step.ts";
import { stepCost } from "./cost.ts";
import { GEOMETRIES, openConfig, weightBytes } from "./models.ts";

const MODELS = ["gpt2", "gpt2-xl", "llama-3.2-1b", "llama-3-8b"] as const;
const WINDOW = { batchSize: 1, context: 1024 };

interface Machine {
  readonly name: string;
  /** Of the floats that it computes with. */
  readonly floatBytes: 2 | 4;
  /** Operations per second of matrix products. */
  readonly rate: number;
  /** Bytes per second of its memory. */
  readonly bandwidth: number;
  readonly memoryBytes: number;
  /** Bytes per second from where weights lie that its memory does not hold. */
  readonly link: number;
  /** Seconds from the start of one node to the start of the next, at the least. */
  readonly launch: number;
  /** Weights stay as they are on disk and are cast where they are used. */
  readonly isMapped?: boolean;
}

const laptop = { bandwidth: 60e9, memoryBytes: 16e9, link: 3e9, launch: 0, isMapped: true };
const rtx4090 = { bandwidth: 1.01e12, memoryBytes: 24e9, link: 25e9, launch: 4e-6 };
const h100 = { bandwidth: 3.35e12, memoryBytes: 80e9, link: 50e9, launch: 4e-6 };

/** As published, F32 on a GPU being TensorFloat-32; the laptop: eight AVX2 cores at the share that ONNX Runtime reaches. */
const MACHINES: readonly Machine[] = [
  { name: "laptop", floatBytes: 4, rate: 0.5e12, ...laptop },
  { name: "RTX 4090", floatBytes: 4, rate: 82.6e12, ...rtx4090 },
  { name: "RTX 4090 fp16", floatBytes: 2, rate: 165e12, ...rtx4090 },
  { name: "H100", floatBytes: 4, rate: 495e12, ...h100 },
  { name: "H100 fp16", floatBytes: 2, rate: 989e12, ...h100 },
];

interface Work {
  readonly operations: number;
  readonly bytes: number;
  readonly nodes: number;
  readonly weights: number;
  /** Weights as they are on disk. */
  readonly storedBytes: number;
  /** Intermediate values, and what compiling takes. */
  readonly sessionBytes: number;
}

/** A step's parts in milliseconds by machine, and which of them bounds it. */
export async function floors(folder: string) {
  const rows = [];
  for (const name of MODELS) {
    const dtype = name.startsWith("gpt2") ? "F32" : "BF16";
    const work = workOf(await openConfig(folder, GEOMETRIES[name], dtype));
    for (const machine of MACHINES)
      rows.push({ case: name, machine: machine.name, ...floorOf(work, machine) });
  }
  return rows;
}

function workOf(opened: OpenedModel): Work {
  const trained = [...opened.temperatures!.values.keys()];
  const graph = buildTrainingGraph(opened, WINDOW, trained);
  return {
    ...stepCost(opened.model, WINDOW),
    nodes: topologicalOrder(Object.values(graph)).filter(({ inputs }) => inputs.length > 0).length,
    weights: countParameters(opened.model),
    storedBytes: weightBytes(opened),
    sessionBytes: estimate(graph, "cpu").host,
  };
}

function floorOf(work: Work, { floatBytes, isMapped = false, ...machine }: Machine) {
  const weightBytes = isMapped ? work.storedBytes : work.weights * floatBytes;
  const needed = weightBytes + (work.sessionBytes * floatBytes) / 4;
  // Forward and back, each weight is read as it is stored and written as a float.
  const isCast = isMapped && work.storedBytes < work.weights * floatBytes;
  const casts = isCast ? 2 * (work.storedBytes + work.weights * floatBytes) : 0;
  const parts = {
    arithmetic: (1e3 * work.operations) / machine.rate,
    memory: (1e3 * ((work.bytes * floatBytes) / 4 + casts)) / machine.bandwidth,
    launches: 1e3 * work.nodes * machine.launch,
    transfer: needed > machine.memoryBytes ? (1e3 * 2 * weightBytes) / machine.link : 0,
  };
  // A device computes its nodes one by one, while the next are started and the next weights come.
  const { arithmetic, memory, launches, transfer } = parts;
  const stepMs = Math.max(arithmetic + memory, launches, transfer);
  const bound =
    stepMs === launches
      ? "launches"
      : stepMs === transfer
        ? "transfer"
        : memory > arithmetic
          ? "memory"
          : "arithmetic";
  return { neededGb: needed / 1e9, ...parts, stepMs, bound };
}

/** One way, as published; seconds until the first byte. */
const NETWORKS = [
  { name: "1 Gbit/s Ethernet", bandwidth: 125e6, latency: 50e-6 },
  { name: "400 Gbit/s InfiniBand", bandwidth: 50e9, latency: 3e-6 },
];

/**
 * Milliseconds in which workers add up their gradients: of temperatures by a tree and back, which for so few bytes takes
 * least; of all weights, for comparison, by a ring, in which each worker sends all bytes about twice.
 */
export async function exchanges(folder: string) {
  const rows = [];
  for (const name of MODELS) {
    const opened = await openConfig(folder, GEOMETRIES[name], "F32");
    let trained = 0;
    for (const { length } of opened.temperatures!.values.values()) trained += 4 * length;
    for (const { name: network, bandwidth, latency } of NETWORKS) {
      const ofTree = (workers: number) =>
        1e3 * 2 * Math.ceil(Math.log2(workers)) * (latency + trained / bandwidth);
      rows.push({
        case: name,
        network,
        trainedKb: trained / 1e3,
        workers8: ofTree(8),
        workers1024: ofTree(1024),
        allWeights: (1e3 * 2 * weightBytes(opened)) / bandwidth,
      });
    }
  }
  return rows;
}
