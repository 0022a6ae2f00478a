// One of several processes that `mpirun` or `srun` started: rank 0 is the program, the others compute for it.

import { existsSync, readdirSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { leadRanks } from "../src/engines/ranks/lead.ts";
import { launchOf } from "../src/engines/ranks/mpi.ts";
import { serveRank } from "../src/engines/ranks/serve.ts";
import { hubSettings } from "../src/hub/environment.ts";
import { cacheFolder, type CommandIo, SIGNALS, versionIn } from "./io.ts";

/** What a command says of ranks; for one that says nothing, each process is one of its own. */
export type RankFlags = Readonly<{ rankTimeout?: unknown; logRanks?: unknown }>;

/** Does a command's work on as many ranks as were started, or alone. */
export async function onRanks(io: CommandIo, flags: RankFlags, work: () => Promise<void>) {
  const { rankTimeout: timeout, logRanks } = flags;
  const launch = typeof timeout === "number" ? launchOf(io.env) : undefined;
  if (!launch || typeof timeout !== "number") return work();
  // UCX, which MPICH uses, would replace the program's brk(), after which Node's heap was seen to break (UCX 1.13).
  process.env["UCX_MEM_EVENTS"] ??= "n";
  const options = { timeout, version: versionIn(io.packageRoot) };
  const name = `rank ${launch.rank} of ${launch.size} on ${hostname()}`;
  const onNote = (text: string) => void (logRanks && io.stderr.write(`${name}: ${text}\n`));
  if (launch.rank > 0) {
    // Signals go to all ranks: rank 0 saves, and ends the others.
    for (const signal of SIGNALS) process.on(signal, () => undefined);
    const { cacheDir } = hubSettings(io.env, io.homeDir);
    const blobs = (sha256: string) => {
      const repos = existsSync(cacheDir) ? readdirSync(cacheDir) : [];
      const inHub = repos.map((repo) => join(cacheDir, repo, "blobs", sha256));
      return [cacheFolder(io, join("ranks", sha256)), ...inHub] as const;
    };
    const visibleCards = io.env["CUDA_VISIBLE_DEVICES"];
    return serveRank(launch, { ...options, onNote, blobs, visibleCards });
  }
  const ranks = (io.ranks = await leadRanks(launch, options));
  onNote(`with ${ranks.hosts.join(", ")}`);
  await work().catch(async (error: unknown) => {
    await ranks.close(error);
    throw error;
  });
  await ranks.close();
}
