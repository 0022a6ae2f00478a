// Two machines on one: network namespaces with a cable between them, and processes there with a name, memory and process
// numbers of their own. Linux, as root.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const tried = (...words: readonly string[]) =>
  spawnSync(words[0]!, words.slice(1), { encoding: "utf8" });

/** Lays the cable; `hidden` is a folder that the second host does not see. */
export function openHosts(hidden: string) {
  const folder = mkdtempSync(join(tmpdir(), "ssa-hosts-"));
  const hosts = [1, 2].map((i) => ({ name: `ssa${process.pid}-${i}`, address: `10.77.0.${i}` }));
  const names = hosts.map(({ name }) => name);
  const run = (line: string) => {
    const { status, stderr } = tried("ip", ...line.split(" "));
    if (status !== 0) throw new Error(`ip ${line}: ${stderr || "not here"}`);
  };
  const close = () => {
    for (const name of names) tried("ip", "netns", "del", name);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const name of names) run(`netns add ${name}`);
    run(`link add v0 netns ${names[0]} type veth peer name v0 netns ${names[1]}`);
    for (const { name, address } of hosts) {
      run(`-n ${name} addr add ${address}/24 dev v0`);
      for (const device of ["v0", "lo"]) run(`-n ${name} link set ${device} up`);
    }
  } catch (error) {
    close();
    throw error;
  }
  /** A program that starts its arguments on a host. */
  const enter = join(folder, "enter");
  const inside = `hostname $0; mount -t tmpfs none /dev/shm; export TMPDIR=/dev/shm SSA_CACHE='${folder}'/$0
[ $0 = ${names[0]} ] || mount -t tmpfs none '${hidden}'; exec "$@"`;
  writeFileSync(
    enter,
    `#!/bin/sh
exec ip netns exec $1 unshare --uts --ipc --mount --pid --fork --mount-proc --kill-child sh -c '${inside.replaceAll("'", `'\\''`)}' "$@"`,
    { mode: 0o755 },
  );
  /** What launchers take for ssh. */
  const shell = join(folder, "shell");
  const cases = hosts.map(({ name, address }) => `${address}) host=${name} ;;`);
  writeFileSync(
    shell,
    `#!/bin/sh
while :; do case $1 in -l | -p | -o) shift 2 ;; -*) shift ;; *) break ;; esac; done
case $1 in ${cases.join(" ")} esac; shift; exec '${enter}' $host sh -c "$*"`,
    { mode: 0o755 },
  );
  return {
    close,
    /** The start of a line that starts a launcher on the first host. */
    enter: `${enter} ${names[0]}`,
    shell,
    addresses: hosts.map(({ address }) => address).join(),
    cut: () => run(`-n ${names[0]} link set v0 down`),
  };
}
