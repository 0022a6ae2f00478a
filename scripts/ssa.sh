#!/bin/sh
# ssa with the Node.js beside it, from wherever this folder lies.
here=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
exec "$here/bin/node" "$here/lib/ssa/dist/cli/main.js" "$@"
