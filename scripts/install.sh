#!/bin/sh
# sh install.sh DIR: checks the archive that lies beside this file and unpacks it into DIR. It needs no other program than
# tar, gzip or xz, and sha256sum.
set -eu
here=$(dirname -- "$0")
[ $# = 1 ] || { echo "usage: sh install.sh DIR" >&2; exit 2; }
found=
for archive in "$here"/ssa-*.tar.gz "$here"/ssa-*.tar.xz; do
  [ -e "$archive" ] || continue
  [ -z "$found" ] || { echo "error: several archives are beside install.sh; leave one" >&2; exit 2; }
  found=$archive
done
[ -n "$found" ] || { echo "error: no ssa-*.tar.gz or .tar.xz is beside install.sh" >&2; exit 2; }
(cd "$here" && sha256sum -c "${found##*/}.sha256") >&2 || exit 1
mkdir -p "$1"
case $found in *.xz) xz -dc "$found" ;; *) gzip -dc "$found" ;; esac | tar -xf - -C "$1"
name=${found##*/}
name=${name%.tar.*}
"$1/$name/bin/ssa" --version >/dev/null || { echo "error: what was unpacked does not run here" >&2; exit 1; }
echo "PATH=$(cd "$1" && pwd)/$name/bin:\$PATH"
