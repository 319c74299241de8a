#!/usr/bin/env bash
# Starts a job on several hosts under torchrun; run the same line on each host. Any version of Python torch provides
# torchrun, which starts the program without Python.
# Usage: HOSTS=2 RANKS=8 RENDEZVOUS=first-host:29400 scripts/launch_torchrun.sh CONFIG.yaml [--key=value ...]
set -euo pipefail
RENDEZVOUS=${RENDEZVOUS:-${MEET:-}}  # MEET: the former name
[ $# -ge 1 ] && [ -n "$RENDEZVOUS" ] || { sed -n '2,4p' "$0" | cut -c3-; exit 2; }
cd "$(dirname "$0")/.."

ranks=${RANKS:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) / ranks > 0 ? $(nproc) / ranks : 1))}
exec "${TORCHRUN:-torchrun}" --no-python --nnodes "${HOSTS:-1}" --nproc-per-node "$ranks" --rdzv-id dsmoe \
  --rdzv-backend c10d --rdzv-endpoint "$RENDEZVOUS" build/dsmoe train "$@"
