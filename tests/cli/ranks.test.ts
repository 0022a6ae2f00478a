// Several ranks, started by the real launchers: what comes out is what one process gives, bit for bit, and a rank that is
// lost ends the others in good order.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { orElse } from "../../src/core/errors.ts";
import { fixture, outcomeOf, writeTokens } from "../run/small-run.ts";
import { assertRefused, ssa } from "./program.ts";

const has = (command: string, args = ["--version"]) => spawnSync(command, args).status === 0;
const launchers = {
  openmpi: `mpirun.openmpi --allow-run-as-root --oversubscribe`,
  mpich: `mpirun.mpich`,
} as const;
const isHere = orElse(() => Boolean(import.meta.resolve("koffi")), false);
const lacks = (name: keyof typeof launchers) =>
  isHere && has(`mpirun.${name}`) ? false : `koffi or mpirun.${name} is not here`;

/** Starts the program by so many ranks of a launcher. */
const onRanks = (name: keyof typeof launchers, ranks: number) => ({
  script: `exec ${launchers[name]} -np ${ranks} "$@"`,
});

let folder = "";
let train: string[] = [];
let evaluate: string[] = [];
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "ssa-ranks-"));
  const data = await writeTokens(join(folder, "data"));
  const how = ["--data", data, "--device", "cpu", "--threads", "1"];
  train = ["finetune", "--base", fixture(), ...how, "--max-added-share", "0.5", "--steps", "12"];
  train.push("--gradient-accumulation-steps", "5", "--eval-every", "4", "--save-every", "1000");
  train.push("--tune", "temperatures,norms", "--log-format", "json");
  evaluate = ["eval", "--model", fixture(), ...how, "--json"];
  const { code, stderr } = await ssa([...train, "--out", join(folder, "one")]);
  assert.equal(code, 0, stderr);
});
after(() => rm(folder, { recursive: true, force: true }));

for (const [name, ranks] of [
  ["openmpi", 2],
  ["mpich", 3],
] as const)
  test(
    `${ranks} ranks of ${name} train to the bits of one process`,
    { skip: lacks(name) },
    async () => {
      const out = join(folder, name);
      const { code, stderr } = await ssa(
        [...train, "--out", out, "--log-ranks"],
        onRanks(name, ranks),
      );
      assert.equal(code, 0, stderr);
      assert.match(stderr, new RegExp(`rank ${ranks - 1} of ${ranks} on .*: computes on cpu`));
      assert.deepEqual(await outcomeOf(out), await outcomeOf(join(folder, "one")));
    },
  );

test(
  "an evaluation is that of one process, and so is all that is printed",
  { skip: lacks("mpich") },
  async () => {
    const [one, two] = [await ssa(evaluate), await ssa(evaluate, onRanks("mpich", 2))];
    assert.equal(two.code, 0, two.stderr);
    assert.equal(two.stdout, one.stdout);
  },
);

test(
  "the launcher of another library is refused",
  { skip: lacks("mpich") || lacks("openmpi") },
  async () => {
    const env = { SSA_MPI: "libmpi.so.40" };
    const ended = await ssa(evaluate, { ...onRanks("mpich", 2), env });
    assertRefused(
      ended,
      /2 ranks were started, but the library .* knows of 1: the launcher is another/,
    );
  },
);

test(
  "a failure of rank 0 ends the others with its exit code",
  { skip: lacks("mpich") },
  async () => {
    const given = ["eval", "--model", fixture(), "--data", "nowhere.txt"];
    const ended = await ssa(given, onRanks("mpich", 2));
    assertRefused(ended, /error: no data at nowhere\.txt[^]*error: rank 1 on .* ends: no data at/);
  },
);

/** The process of a rank, by what its launcher told it. */
function processOf(rank: number, out: string): number | undefined {
  const isOf = (pid: string) => {
    const read = (name: string) => orElse(() => readFileSync(`/proc/${pid}/${name}`, "utf8"), "");
    const words = read("cmdline").split("\0");
    if (!words.includes(out) || !words[0]!.endsWith("node")) return false;
    return new RegExp(`^(?:OMPI_COMM_WORLD|PMI)_RANK=${rank}$`, "m").test(
      read("environ").replaceAll("\0", "\n"),
    );
  };
  return Number(readdirSync("/proc").find((pid) => /^\d+$/.test(pid) && isOf(pid)));
}

// MPICH's launcher kills all ranks with the first one.
test(
  `where rank 1 is killed, rank 0 saves, and one process goes on to the same end`,
  { skip: lacks("openmpi") },
  async () => {
    const out = join(folder, "killed");
    let isKilled = false;
    const ended = await ssa([...train, "--out", out], {
      ...onRanks("openmpi", 2),
      onStderr: (stderr) => {
        if (isKilled || !/"kind":"step","steps":12,"step":5/.test(stderr)) return;
        isKilled = process.kill(processOf(1, out)!, "SIGKILL");
      },
    });
    assert.notEqual(ended.code, 0);
    assert.match(
      ended.stderr,
      /rank 1 \(process \d+ on .*\) has ended; all up to step \d+ is saved/,
    );
    const resumed = await ssa(["finetune", "--resume", "--out", out]);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.deepEqual(await outcomeOf(out), await outcomeOf(join(folder, "one")));
  },
);
