// Several ranks, started by the real launchers: what comes out is what one process gives, bit for bit, and a rank that is
// lost ends the others in good order.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { messageOf, orElse } from "../../src/core/errors.ts";
import { readLines } from "../../src/files/json.ts";
import { fixture, outcomeOf, writeTokens } from "../run/small-run.ts";
import { openHosts } from "./hosts.ts";
import { assertRefused, ssa } from "./program.ts";
import { sharedFolder } from "../helpers.ts";

const has = (command: string, args = ["--version"]) => spawnSync(command, args).status === 0;
const launchers = {
  openmpi: `mpirun.openmpi --allow-run-as-root --oversubscribe`,
  mpich: `mpirun.mpich`,
} as const;
const isHere = orElse(() => Boolean(import.meta.resolve("koffi")), false);
const lacks = (name: keyof typeof launchers) =>
  isHere && has(`mpirun.${name}`) ? false : `koffi or mpirun.${name} is not here`;

/** Why there can be no second host; false where there can. */
function lacksHosts(): string | false {
  try {
    openHosts("/mnt").close();
    return false;
  } catch (error) {
    return messageOf(error);
  }
}

/** Starts the program by so many ranks of a launcher. */
const onRanks = (name: keyof typeof launchers, ranks: number) => ({
  script: `exec ${launchers[name]} -np ${ranks} "$@"`,
});

let folder = "";
let train: string[] = [];
let evaluate: string[] = [];
before(async () => {
  folder = sharedFolder();
  const data = await writeTokens(join(folder, "data"));
  const how = ["--data", data, "--device", "cpu", "--threads", "1"];
  train = ["finetune", "--base", fixture(), ...how, "--max-added-share", "0.5", "--steps", "12"];
  train.push("--gradient-accumulation-steps", "5", "--eval-every", "4", "--save-every", "1000");
  train.push("--tune", "temperatures,norms", "--log-format", "json");
  evaluate = ["eval", "--model", fixture(), ...how, "--json"];
  const { code, stderr } = await ssa([...train, "--out", join(folder, "one")]);
  assert.equal(code, 0, stderr);
});

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
  "ranks with two devices each train a whole model to the bits of one device",
  { skip: lacks("mpich") },
  async () => {
    // Of its tensors some follow their message, and are too small to be shared out.
    const whole = [...train, "--base", "checkpoints/tiny-gpt2", "--tune", "all"];
    whole.push("--context", "16", "--batch-size", "1", "--steps", "1", "--eval-windows", "4");
    const [one, two] = [join(folder, "whole-1"), join(folder, "whole-2")];
    const alone = await ssa([...whole, "--out", one]);
    assert.equal(alone.code, 0, alone.stderr);
    const among = ["--device", "cpu,cpu", "--out", two];
    const { code, stderr } = await ssa([...whole, ...among], onRanks("mpich", 2));
    assert.equal(code, 0, stderr);
    const weights = (out: string) => readFileSync(join(out, "final/model.safetensors"));
    assert.ok(weights(two).equals(weights(one)));
    const losses = (out: string) =>
      readLines(join(out, "metrics.jsonl")).then((lines) => lines.map(({ lossNats }) => lossNats));
    assert.deepEqual(await losses(two), await losses(one));
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

test(
  "USR1 saves, and other ranks go on to the same end",
  { skip: lacks("openmpi") || lacks("mpich") },
  async () => {
    const out = join(folder, "told");
    let isTold = false;
    const told = await ssa([...train, "--out", out], {
      ...onRanks("openmpi", 2),
      onStderr: (stderr, child) => {
        if (isTold || !/"kind":"step","steps":12,"step":5/.test(stderr)) return;
        isTold = child.kill("SIGUSR1");
      },
    });
    assert.equal(told.code, 130, told.stderr);
    const resumed = await ssa(["finetune", "--resume", "--out", out], onRanks("mpich", 3));
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.deepEqual(await outcomeOf(out), await outcomeOf(join(folder, "one")));
  },
);

/** Whether this process may give others file systems and networks of their own. */
const mayUnshare = has("unshare", ["--mount", "--uts", "mount", "-t", "tmpfs", "none", "/mnt"]);

test(
  "where rank 0's disk is full, all ranks end with its reason",
  { skip: lacks("mpich") || (mayUnshare ? false : "no right to mount") },
  async () => {
    const disk = join(folder, "disk");
    await mkdir(disk);
    const ended = await ssa([...train, "--out", join(disk, "run"), "--save-every", "1"], {
      script: `exec unshare --mount sh -c 'mount -t tmpfs -o size=48k none "$0" && exec "$@"' "${disk}" ${launchers.mpich} -np 2 "$@"`,
    });
    assert.equal(ended.code, 1, ended.stderr);
    assert.match(
      ended.stderr,
      /error: .*the disk is full[^]*error: rank 1 on .* ends: .*the disk is/,
    );
  },
);

test(
  "of two hosts the second gets the model; when the cable is cut, rank 0 saves",
  { skip: lacks("openmpi") || lacksHosts() },
  async () => {
    const model = join(folder, "model");
    await cp(fixture(), model, { recursive: true });
    const hosts = openHosts(model);
    try {
      const mca = `plm_rsh_agent ${hosts.shell} btl tcp,self btl_tcp_if_include 10.77.0.0/24 oob_tcp_if_include 10.77.0.0/24`;
      const settings = mca.replaceAll(/(\S+) (\S+)/g, "--mca $1 $2");
      // Open MPI's launcher may wait for ever for the host that it cannot reach: when rank 0 has ended, the test ends it.
      const script = `exec ${hosts.enter} ${launchers.openmpi} ${settings} --host ${hosts.addresses} -np 2 "$@"`;
      const out = join(folder, "cut");
      const how = ["--base", model, "--steps", "2000", "--rank-timeout", "2", "--log-ranks"];
      let isCut = false;
      let isOver = false;
      const ended = await ssa([...train, ...how, "--out", out], {
        script,
        onStderr: (stderr, child) => {
          if (!isCut && (isCut = /"steps":2000,"step":5/.test(stderr))) hosts.cut();
          if (!isOver && (isOver = /is saved/.test(stderr)))
            setTimeout(() => child.kill("SIGKILL"), 500);
        },
      });
      assert.match(
        ended.stderr,
        /rank 1 of 2 on ssa.*-2: gets .*model\.safetensors .* from rank 0/,
      );
      assert.match(ended.stderr, /rank 1 .*was silent for 2 s; all up to step \d+ is saved/);
    } finally {
      hosts.close();
    }
  },
);
