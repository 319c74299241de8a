#!/usr/bin/env python3
"""Compares checkpoints at equal numbers of active parameters: a plan by layer, the best uniform threshold and top_k.

Chooses policies on one text and measures them on another, beside a sparse-trained checkpoint under its training policy.
Caches measurements in the directory of the run.

Usage: equal_activation.py CALIBRATION TEST SPARSE_RUN RUN... [--shares 0.3 0.5]
"""

import argparse
import json
import pathlib
import subprocess
import sys

DSMOE = "build/dsmoe"


def measure(cache, *arguments):
    """Returns the JSON object that the command prints, from `cache` if it exists."""
    if cache.exists():
        return json.loads(cache.read_text())
    print(f"measuring {' '.join(map(str, arguments))}", file=sys.stderr)
    command = [DSMOE, *map(str, arguments), "--dtype", "float32", "--json"]  # the same numbers on every CPU
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stderr.strip()}\nequal_activation: failed: {DSMOE} {' '.join(map(str, arguments))}")
    partial = cache.with_suffix(".partial")
    partial.write_text(done.stdout)
    partial.rename(cache)
    return json.loads(done.stdout)


def cell(result):
    share = result["active_parameters"] / result["non_embedding_parameters"]
    return f"{result['perplexity']:.3f} ({share:.1%})"


def row(options, run, share, sparse):
    """Measures one checkpoint within a budget of active parameters; share None: the budget of the sparse-trained run."""
    whole = measure(run / "eval-all.json", "eval", run, "--data", options.test, "--policy", "all")
    name = "equal" if share is None else f"{share:g}"
    budget = sparse["active_parameters"] if share is None else share * whole["non_embedding_parameters"]
    routing = run / f"budget-{name}.yaml"
    found = measure(run / f"budget-{name}.json", "budget", run, "--data", options.calibration, "--tokens", 4096,
                    "--held-out-tokens", 0, "--active-parameters", f"{budget:.0f}", "--out", routing, "--force")
    policies = {"plan": f"routing={routing}", "threshold": found["uniform_threshold"], "top_k": found.get("uniform")}
    cells = [
        cell(measure(run / f"budget-{name}-{kind}.json", "eval", run, "--data", options.test, "--policy", policy))
        if policy else "-" for kind, policy in policies.items()
    ]
    share_of_budget = budget / whole["non_embedding_parameters"]
    return [run.name, f"{share_of_budget:.1%}", *cells, cell(sparse) if share is None else "-", cell(whole)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("calibration", help="text for the choice of policies")
    parser.add_argument("test", help="text for the measurement")
    parser.add_argument("sparse_run", type=pathlib.Path, help="sparse-trained run; its active parameters are the first budget")
    parser.add_argument("runs", type=pathlib.Path, nargs="+")
    parser.add_argument("--shares", type=float, nargs="*", default=[], help="further budgets, as shares of non-embedding parameters")
    options = parser.parse_args()
    sparse = measure(options.sparse_run / "eval-training.json", "eval", options.sparse_run, "--data", options.test)
    heading = ["run", "budget", "plan by layer", "best threshold", "best top_k", "sparse-trained", "every expert"]
    print("| " + " | ".join(heading) + " |\n" + "|" + " --- |" * len(heading))
    for run in options.runs:
        for share in [None, *options.shares]:
            print("| " + " | ".join(row(options, run, share, sparse)) + " |", flush=True)


if __name__ == "__main__":
    main()
