#!/usr/bin/env python3
"""Prints quality, active parameters and decode speed of a checkpoint under several routing policies.

Usage: policy_table.py [--no-speed] TEXT CHECKPOINT POLICY... [-- CHECKPOINT POLICY...]...
With --no-speed, measures JOBS rows at a time (environment variable, default 1).
"""

import concurrent.futures
import json
import os
import subprocess
import sys

DSMOE = "build/dsmoe"
COLUMNS = ["model", "policy", "active experts", "active parameters", "share", "perplexity", "bits/byte", "decode tok/s"]


def measure(*arguments):
    done = subprocess.run([DSMOE, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stderr.strip()}\npolicy_table: failed: {DSMOE} {' '.join(arguments)}")
    return json.loads(done.stdout)


def describe_experts(active):
    return ", ".join(f"{kind} {count:.2f}" for kind, count in active.items()) or "-"


def row(text, checkpoint, policy, with_speed):
    print(f"measuring {checkpoint} under {policy}", file=sys.stderr)
    # The same numbers on every CPU: the default may be bfloat16.
    policy_arguments = ["--dtype", "float32", *([] if policy == "training" else ["--policy", policy])]
    quality = measure("eval", checkpoint, "--data", text, *policy_arguments)
    cells = [
        checkpoint.rstrip("/").split("/")[-1],
        quality["policy"],
        describe_experts(quality["active_experts"]),
        f"{quality['active_parameters']:,.0f}",
        f"{quality['active_parameters'] / quality['non_embedding_parameters']:.1%}",
        f"{quality['perplexity']:.4f}",
        f"{quality['bits_per_byte']:.4f}",
    ]
    if with_speed:
        speed = measure("generate", checkpoint, "--prompt", "\n", "--max-tokens", "100", *policy_arguments)
        cells.append(f"{speed['decode_tokens_per_second']:.0f}")
    return cells


def show(rows):
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(rows[0]))]
    for cells in rows:
        left = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3])]
        right = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:])]
        print("  ".join(left + right), flush=True)


def main():
    with_speed = sys.argv[1] != "--no-speed"
    text, *arguments = sys.argv[1:] if with_speed else sys.argv[2:]
    measured = []
    checkpoint = None
    for argument in arguments:
        if argument == "--":
            checkpoint = None
        elif checkpoint is None:
            checkpoint = argument
        else:
            measured.append((text, checkpoint, argument, with_speed))
    jobs = 1 if with_speed else int(os.environ.get("JOBS", "1"))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        rows = list(pool.map(lambda arguments: row(*arguments), measured))
    show([COLUMNS if with_speed else COLUMNS[:-1], *rows])


if __name__ == "__main__":
    main()
