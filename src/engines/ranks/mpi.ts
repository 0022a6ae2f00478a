// MPI: messages between the processes (ranks) that `mpirun` or `srun` started, by the library that the launcher belongs to.
// Nothing blocks but the start and the end: a message is begun, then asked for between turns of the event loop, so that
// progress, signals and timers go on, and a silent network holds nobody.

import { writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { messageOf, orElse, UserError } from "../../core/errors.ts";
import { inOrder } from "../pool.ts";
import { packed, unpacked } from "./message.ts";

/** The shared library's names, by ABI; Intel MPI and MVAPICH have MPICH's. */
const libraries = {
  "Open MPI": ["libmpi.so.40", "/opt/homebrew/lib/libmpi.40.dylib"],
  MPICH: ["libmpich.so.12", "libmpi.so.12", "/opt/homebrew/lib/libmpi.12.dylib"],
} as const;

/** The variables of launchers; a job of Slurm may have a launcher of its own, and a batch script is no step. */
const launchers = [
  ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "Open MPI"],
  ["PMI_RANK", "PMI_SIZE", "MPICH"],
  ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "Open MPI"],
] as const;

export type Launch = NonNullable<ReturnType<typeof launchOf>>;

/** The place that a launcher gave this process; undefined where none did, or where it is alone. */
export function launchOf(env: Readonly<Record<string, string | undefined>>) {
  const [rank, size, library] = launchers.find(([, size]) => Number(env[size]) > 1) ?? [];
  if (!rank) return undefined;
  /** A file instead of the library's usual names. */
  const path = env["SSA_MPI"] || undefined;
  // MPICH's Finalize may wait for ever for a rank that is further in its own (4.0, UCX over TCP). Its launcher, Hydra, can be
  // told so without it: by PMI's line, through this descriptor. Slurm needs nothing.
  const hydra = env["MPI_LOCALRANKID"] ? Number(env["PMI_FD"]) : 0;
  return { rank: Number(env[rank]), size: Number(env[size]), library, path, hydra };
}

/** The functions in use with the types of their arguments, H being a handle. */
const functions = {
  Init: "void*, void*",
  Finalize: "",
  Comm_rank: "H, _Out_ int*",
  Comm_size: "H, _Out_ int*",
  Comm_set_errhandler: "H, H",
  Isend: "void*, int, H, int, int, H, void*",
  Irecv: "void*, int, H, int, int, H, void*",
  Test: "void*, _Out_ int*, void*",
  Cancel: "void*",
  Wait: "void*, void*",
} as const;

/** Handles of MPICH's ABI, from its mpi.h; Open MPI's are addresses of symbols with these names. */
const HANDLES = { comm_world: 0x44000000, byte: 0x4c00010d, errors_return: 0x54000001 };

async function load({ library, path }: Launch) {
  const { default: koffi } = await import("koffi").catch((cause: unknown) => {
    const hint = "npm install koffi";
    throw new UserError("several ranks need the package koffi, which is not here", { hint, cause });
  });
  const names: readonly string[] = path ? [path] : libraries[library];
  // Open MPI's plug-ins look for its symbols among those of all.
  const open = (name: string) => orElse(() => koffi.load(name, { global: true }), undefined);
  const found = names.map(open).find((one) => one !== undefined);
  if (!found)
    throw new UserError(`the launcher is ${library}'s, whose library is not here`, {
      hint: `install it (looked for ${names.join(", ")}), or name its file: SSA_MPI=PATH`,
    });
  const isOpen = orElse(() => Boolean(found.symbol("ompi_mpi_comm_world")), false);
  const handle = (name: keyof typeof HANDLES) =>
    isOpen ? koffi.address(found.symbol(`ompi_mpi_${name}`)) : HANDLES[name];
  const bound = Object.entries(functions).map(([name, types]) => {
    const call = found.func(`int MPI_${name}(${types.replaceAll("H", isOpen ? "void*" : "int")})`);
    return [name, call as (...given: readonly unknown[]) => number] as const;
  });
  const calls = new Map(bound);
  const call = (name: keyof typeof functions, ...given: readonly unknown[]) => {
    const code = calls.get(name)!(...given);
    if (code !== 0) throw new Error(`MPI_${name} gave ${code}`);
  };
  return { call, handle, isOpen, anySource: isOpen ? -1 : -2 };
}

/** A message is a head (the sender, the tag of what follows, the number of bytes), these, and its large arrays in pieces. */
const HEAD = 1;
/** Tags go round: more than what is ever under way, and no more than any library has. */
const TAGS = 30_000;
/** Bytes that hold up a sign of life on a slow network for less than a second. */
const PIECE = 2 ** 22;
/** Pieces of a message that are under way. */
const AHEAD = 2;
/** So long it is asked for more at once, later once a millisecond. */
const EAGER_MS = 3;

interface Pending {
  readonly name: "Isend" | "Irecv";
  readonly request: BigInt64Array;
  readonly memory: ArrayBufferView;
  readonly done: () => void;
}

interface Listener {
  readonly hear: (from: number, message: unknown) => void;
  /** Of a message that is still coming. */
  readonly onPiece: (from: number) => void;
  /** Why no message can come any more. */
  readonly fail: (error: unknown) => void;
}

/** Of large arrays: messages of other tags go between. */
function* piecesOf(large: readonly Uint8Array[]) {
  for (const bytes of large)
    for (let start = 0; start < bytes.length; start += PIECE)
      yield bytes.subarray(start, start + PIECE);
}

/** Joins the other ranks. */
export async function openWire(launch: Launch, { hear, onPiece, fail }: Listener) {
  const { call, handle, isOpen: isOpenMpi, anySource } = await load(launch);
  const [world, byte] = [handle("comm_world"), handle("byte")];
  call("Init", null, null);
  const [rank, size] = [[-1], [0]] as const;
  call("Comm_rank", world, rank);
  call("Comm_size", world, size);
  if (size[0] !== launch.size || rank[0] !== launch.rank)
    throw new UserError(
      `${launch.size} ranks were started, but the library of ${launch.library} knows of ${size[0]}: the launcher is another one's`,
      { hint: "use the library's own mpirun, or srun with --mpi=pmix (Open MPI) or pmi2 (MPICH)" },
    );
  // What fails comes back as a code, instead of ending the process in the middle of its work.
  call("Comm_set_errhandler", world, handle("errors_return"));

  /** What the library reads or writes meanwhile is held here: beyond 64 bytes memory that does not move. */
  const pending = new Set<Pending>();
  const status = new Uint8Array(256);
  const flag = [0];
  let [activeAt, isOpen] = [0, true];
  const begin = (name: "Isend" | "Irecv", memory: ArrayBufferView, peer: number, tag: number) =>
    new Promise<void>((done) => {
      const request = new BigInt64Array(16);
      call(name, memory, memory.byteLength, byte, peer, tag, world, request);
      pending.add({ name, request, memory, done });
    });
  /** Of each sender's last message, when it was heard: a small one does not overtake a large one that it builds on. */
  const heard = new Map<number, Promise<void>>();
  const receive = async (from: number, tag: number, length: number, earlier?: Promise<void>) => {
    const bytes = Buffer.allocUnsafeSlow(Math.max(64, length)).subarray(0, length);
    await begin("Irecv", bytes, from, tag);
    const { message, large } = unpacked(bytes);
    const fill = (piece: Uint8Array) => begin("Irecv", piece, from, tag);
    await inOrder(piecesOf(large), AHEAD, fill, () => onPiece(from));
    await earlier;
    hear(from, message);
  };
  const listen = async () => {
    for (;;) {
      const head = new Float64Array(16);
      await begin("Irecv", head, anySource, HEAD);
      const [from, tag, length] = head;
      heard.set(from!, receive(from!, tag!, length!, heard.get(from!)));
      heard.get(from!)!.catch(fail);
    }
  };
  let sent = 0;
  const poll = () => {
    const count = pending.size;
    for (const one of pending) {
      call("Test", one.request, flag, status);
      if (flag[0] && pending.delete(one)) one.done();
    }
    // There is more than the wait for the next head, or has just been.
    if (pending.size > 1 || pending.size < count) activeAt = performance.now();
    if (performance.now() - activeAt < EAGER_MS) setImmediate(turn);
    else setTimeout(turn, 1);
  };
  const turn = () => {
    try {
      if (isOpen) poll();
    } catch (error) {
      fail(messageOf(error));
    }
  };
  listen().catch(fail);
  turn();
  return {
    /** Resolves when all has left; until then large arrays must stay as they are. */
    send: async (to: number, message: unknown) => {
      const { bytes, large } = packed(message);
      const tag = HEAD + 1 + (sent++ % TAGS);
      const head = new Float64Array(16);
      head.set([launch.rank, tag, bytes.length]);
      await Promise.all([begin("Isend", head, to, HEAD), begin("Isend", bytes, to, tag)]);
      // The library takes no memory that threads share.
      const own = (piece: Uint8Array) =>
        piece.buffer instanceof SharedArrayBuffer ? Buffer.from(piece) : piece;
      const pass = (piece: Uint8Array) => begin("Isend", own(piece), to, tag);
      await inOrder(piecesOf(large), AHEAD, pass, () => undefined);
    },
    /** In order, when nothing is under way any more. Otherwise the launcher ends the others after this process. */
    close: async (isOrderly: boolean) => {
      // But the wait for the next head.
      if (isOrderly) for (let i = 0; pending.size > 1 && i < 1000; i++) await delay(1);
      isOpen = false;
      if (isOrderly && isOpenMpi) {
        for (const { request } of [...pending].filter(({ name }) => name === "Irecv")) {
          call("Cancel", request);
          call("Wait", request, status);
        }
        call("Finalize");
      } else if (isOrderly && launch.hydra) writeSync(launch.hydra, "cmd=finalize\n");
    },
  };
}
