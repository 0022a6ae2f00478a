#!/usr/bin/env bash
# As root, with Debian's slurmctld, slurmd, slurm-client, munge, libpmix-dev, mpich and openmpi-bin: two daemons as two nodes of one machine, on which
# srun starts ranks; what they train is what one process trains.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
skip() {
  echo "two nodes of Slurm: skipped, $1"
  exit 0
}
[ "$(id -u)" = 0 ] || skip "they need root"
for program in slurmctld slurmd srun munged mpirun.mpich; do
  command -v "$program" >/dev/null || skip "$program is not here"
done
work="$(mktemp -d)"
end() {
  for file in "$work"/*.pid; do [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null || true; done
  # Daemons write to the folder until they have ended.
  for _ in $(seq 50); do rm -rf "$work" 2>/dev/null && return || sleep 0.2; done
}
trap end EXIT
chmod 755 "$work"
mkdir -p "$work"/{state,spool-n1,spool-n2,tmp-n1,tmp-n2} /run/munge
chown -R munge: /run/munge 2>/dev/null || true
if ! munge -n >/dev/null 2>&1; then
  # Ended with the daemons: it was not there before.
  runuser -u munge -- munged --force --pid-file=/run/munge/munged.pid || skip "munged does not start here"
  ln -s /run/munge/munged.pid "$work/munged.pid"
fi
host="$(hostname -s)"
cat >"$work/slurm.conf" <<CONF
ClusterName=ssa
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
TmpFS=$work/tmp-%n
SlurmctldPidFile=$work/ctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/ctld.log
SlurmdLogFile=$work/slurmd-%n.log
SlurmctldPort=16817
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16821 CPUs=1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16822 CPUs=1
PartitionName=all Nodes=n1,n2 Default=YES State=UP
CONF
export SLURM_CONF="$work/slurm.conf"
{ slurmctld && slurmd -N n1 && slurmd -N n2 && srun --nodes 2 --ntasks 2 --immediate=30 true; } ||
  skip "its daemons do not start jobs here"
ssa="node dist/cli/main.js"
train="finetune --recipe recipes/demo.yaml --steps 4 --eval-every 4 --device cpu --threads 1 --gradient-accumulation-steps 3"
$ssa $train --out "$work/one" >/dev/null 2>&1
# MPICH's ranks speak PMI 2, those of Open MPI PMIx.
for mpi in pmi2 pmix; do
  if ! srun --mpi=$mpi true 2>/dev/null; then
    echo "srun --mpi=$mpi: skipped, Slurm cannot load it here"
    continue
  fi
  timeout 120 srun --mpi=$mpi --nodes 2 --ntasks 2 --kill-on-bad-exit=1 $ssa $train --out "$work/$mpi" --log-ranks >"$work/said" 2>&1 ||
    { cat "$work/said" && exit 1; }
  cmp "$work/one/final/model.safetensors" "$work/$mpi/final/model.safetensors"
  echo "srun --mpi=$mpi on two nodes: the same weights"
done
