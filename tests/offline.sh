#!/usr/bin/env bash
# Packs an archive and tries it as on a machine with nothing else: no Node.js, no npm, no Python, no network, an empty
# environment and home. tests/offline.sh [OPTIONS OF pack:offline]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
npm run --silent pack:offline -- "$@" "$work/out"

# All that the archive may need of the machine.
mkdir "$work/bin" "$work/home"
for tool in sh env tar gzip xz sha256sum dirname readlink mkdir; do
  if path="$(command -v $tool)"; then ln -s "$path" "$work/bin/"; fi
done
bare=(env -i PATH="$work/bin" HOME="$work/home")
if unshare -n true 2>/dev/null; then bare=(unshare -n "${bare[@]}"); fi
"${bare[@]}" sh "$work/out/install.sh" "$work/machine"
ssa=("${bare[@]}" "$(echo "$work"/machine/*/bin/ssa)")
"${ssa[@]}" doctor
demo=(--steps 5 --context 64 --batch-size 4 --report-windows 8 --eval-windows 4)
"${ssa[@]}" finetune --recipe demo "${demo[@]}" --out "$work/run"
"${ssa[@]}" generate --model "$work/run/final" --prompt "The whale" --max-new-tokens 8
