#!/usr/bin/env bash
# Runs a job on two hosts under Slurm, one rank per GPU or block of cores; a stopped or requeued job resumes.
# Usage: sbatch [--nodes N --ntasks-per-node N --cpus-per-task N] scripts/launch_slurm.sh CONFIG.yaml [--key=value ...]
#SBATCH --job-name=dsmoe
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,3p' "$0" | cut -c3-; exit 2; }
cd "${SLURM_SUBMIT_DIR:?expected to run under sbatch}"

# Rank 0 runs on the first host. The port depends on the job, because several jobs may share a host.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# The signal reaches the ranks 120 s before the limit: they save and exit with 75, and the job is requeued.
code=0
srun --kill-on-bad-exit=1 build/dsmoe train "$@" || code=$?
[ "$code" -ne 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
