#!/usr/bin/env python3
"""Measures the cost of a checkpoint in the training of the quick start's model, as a share of 50 steps.

Usage: checkpoint_cost.py PATH/TO/dsmoe [--steps N] [--every N] [--rounds N] [--config FILE]
Trains alternately with a checkpoint every N steps and with one at the end only; compares the time per checkpoint with 50 steps.
Wall seconds are those from the 3rd step's log line to the last one's; processor seconds are those of the whole process, all
threads: on a busy machine the second number is the steadier one, and it bounds the first where every core trains.
"""

import argparse
import os
import pathlib
import statistics
import re
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
INTERVAL = 50


def seconds_of(dsmoe, config, root, steps, save_every):
    """Returns wall seconds per step and processor seconds of the process."""
    run = root / f"run-{save_every}"
    subprocess.run(["rm", "-rf", run], check=True)
    process = subprocess.Popen(
        [dsmoe, "train", config, f"--run_dir={run}", f"--data.train={root / 'data'}", "--data.validation=",
         f"--train.steps={steps}", "--train.schedule.warmup_steps=1", "--train.validate_every=0",
         f"--train.save_every={save_every}", "--train.log_every=1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    times = []
    for line in process.stderr:
        if re.search(rf" \d+/{steps} ", line):
            times.append(time.monotonic())
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0 or len(times) != steps:
        sys.exit("checkpoint_cost: a run failed")
    return (times[-1] - times[2]) / (steps - 3), usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dsmoe")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default=str(SOURCE / "configs/quickstart.yaml"))
    options = parser.parse_args()
    dsmoe = os.path.abspath(options.dsmoe)
    with tempfile.TemporaryDirectory(prefix="dsmoe-cost-") as name:
        root = pathlib.Path(name)
        subprocess.run([dsmoe, "tokenize", "--input", SOURCE / "data/tinyshakespeare/valid.txt", "--tokenizer", "bytes",
                        "--out", root / "data"], check=True, capture_output=True)
        walls, cpus = [], []
        for i in range(options.rounds):
            measured = {}
            for every in [0, options.every] if i % 2 == 0 else [options.every, 0]:
                measured[every] = seconds_of(dsmoe, options.config, root, options.steps, every)
            plain, saving = measured[0], measured[options.every]
            extra_saves = (options.steps - 1) // options.every  # the last step saves in both runs
            walls.append((saving[0] - plain[0]) * options.every / (INTERVAL * plain[0]))
            cpus.append((saving[1] - plain[1]) / extra_saves / (INTERVAL * plain[1] / options.steps))
            print(f"round {i + 1}: a step {plain[0]:.3f} s; a checkpoint every {INTERVAL} steps adds {100 * walls[-1]:+.2f} % of "
                  f"wall time, {100 * cpus[-1]:+.2f} % of processor time", flush=True)
        newest = sorted((root / f"run-{options.every}" / "checkpoints").glob("step-*"))[-1]
        size = sum(file.stat().st_size for file in newest.iterdir())
        print(f"checkpoint of {size / 2**20:.1f} MiB every {INTERVAL} steps: {100 * statistics.median(walls):+.2f} % of wall time, "
              f"{100 * statistics.median(cpus):+.2f} % of processor time (medians of {options.rounds} rounds)")


if __name__ == "__main__":
    main()
