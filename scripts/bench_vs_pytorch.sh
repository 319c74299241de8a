#!/usr/bin/env bash
# Compares the training step with eager PyTorch of the same shape, precision and threads. Opt-in: makes .venv-bench with
# the Python package torch 2.11.0 (2.7 GB to fetch). Arguments go to bench_vs_pytorch.py; --help lists them. For instance
#   scripts/bench_vs_pytorch.sh --check configs/bench/d1024-both-linear.yaml
#   scripts/bench_vs_pytorch.sh --threads 1,2 --dtypes bfloat16,float32 --memory configs/bench/d1024-dense.yaml
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv-bench/requirements.sha256
wanted=$(sha256sum scripts/requirements-bench.txt)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  "${PYTHON:-python3}" -m venv .venv-bench
  .venv-bench/bin/pip install --only-binary=:all: -r scripts/requirements-bench.txt
  printf '%s\n' "$wanted" > "$stamp"
fi
# Both programs wait alike; spinning threads would measure the machine's other work.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
exec .venv-bench/bin/python scripts/bench_vs_pytorch.py "$@"
