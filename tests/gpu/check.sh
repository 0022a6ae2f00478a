#!/usr/bin/env bash
# The device check: tests/gpu/check.sh OUT [SECONDS]   what was found goes to OUT/check.json and OUT/check.txt
# On a machine with a GPU it runs everything on `cuda` and `webgpu`; without one, in small, on the software adapter that
# Debian's chromium brings (where it is installed) and on the CPU, so that it works on the day a card is there. Where
# python3 has transformers, its exports are run there too (OUT/transformers.json).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
software=/usr/lib/chromium/vk_swiftshader_icd.json
if ! nvidia-smi -L >/dev/null 2>&1 && [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && [ -e "$software" ]; then
  export VK_ICD_FILENAMES=$software
fi
# Deviations from the CPU are those of F32, not of TF32, which NVIDIA's libraries multiply in unless they are told.
export NVIDIA_TF32_OVERRIDE="${NVIDIA_TF32_OVERRIDE:-0}"
status=0
node --import tsx tests/gpu/check.ts "$@" || status=$?
if python3 -c "import torch, transformers, safetensors" 2>/dev/null; then
  python3 tests/gpu/transformers.py "${1:-gpu-check}" || status=1
fi
exit $status
