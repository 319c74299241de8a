#!/usr/bin/env python3
"""Measures the start of dsmoe: minimum and median wall and processor milliseconds of `--help` and, with RUN, of `inspect RUN`.

Usage: scripts/bench_start.py PATH/TO/dsmoe [RUN] [ROUNDS]
"""

import os
import statistics
import subprocess
import sys
import time


def milliseconds(command):
    """Returns (wall, processor) time of one process."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"bench_start: {' '.join(command)} failed")
    return 1e3 * (time.monotonic() - start), 1e3 * (usage.ru_utime + usage.ru_stime)


def main():
    dsmoe, *others = sys.argv[1:] or sys.exit(__doc__)
    commands = [[dsmoe, "--help"]] + [[dsmoe, "inspect", run] for run in others[:1]]
    rounds = int(others[1]) if len(others) > 1 else 11
    times = [[milliseconds(command) for command in commands] for _ in range(rounds)]
    for command, samples in zip(commands, zip(*times)):
        for kind, values in zip(("wall", "processor"), zip(*samples)):
            print(f"{' '.join(command[1:])}: {kind} {min(values):.0f} ms, median {statistics.median(values):.0f} ms")


if __name__ == "__main__":
    main()
