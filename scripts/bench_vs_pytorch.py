#!/usr/bin/env python3
"""Compares training speed and memory of dsmoe and PyTorch on one rank or several.

scripts/bench_vs_pytorch.sh runs it in a virtual environment. Every round runs the programs one after the other, with dsmoe
alternately first and last, so that a change of the machine affects all of them; ratios are medians over rounds.
pytorch_step.py is the PyTorch program.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTORCH = ROOT / "scripts/pytorch_step.py"
PARTS = ["data", "forward", "loss", "backward", "optimizer", "other"]
MIB = 1 << 20


def run(command, stdin=None):
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command[:3]))}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


class Case:
    """One config at one precision and number of threads."""

    def __init__(self, path, dtype, threads, options):
        self.path, self.dtype, self.threads, self.options = path, dtype, threads, options
        self.overrides = [f"--train.compute_dtype={dtype}", *options.overrides]
        with open(path) as file:
            if not (yaml.safe_load(file).get("model") or {}).get("vocab_size"):
                self.overrides.append("--model.vocab_size=257")  # bytes, as the quick start's data
        if options.ranks > 1:
            self.overrides.append(f"--train.accumulation={options.ranks * options.accumulation}")

    def dsmoe(self, *arguments, warmup=None, repetitions=None):
        launch = ["launch", "-n", self.options.ranks, "--"] if self.options.ranks > 1 else []
        out = run([self.options.dsmoe, *launch, "bench", "--train", "--config", self.path, "--threads", self.threads, "--json",
                   "--warmup", self.options.warmup if warmup is None else warmup,
                   "--repetitions", repetitions or self.options.repetitions, *self.overrides, *arguments])
        return json.loads(out.removeprefix("[0] "))

    def pytorch(self, *arguments, warmup=None, repetitions=None, overrides=()):
        config = run([self.options.dsmoe, "bench", "--train", "--config", self.path, "--print-config", *self.overrides, *overrides])
        command = [PYTORCH, "--threads", self.threads, "--warmup", self.options.warmup if warmup is None else warmup,
                   "--repetitions", repetitions or self.options.repetitions,
                   "--routers", self.options.routers, "--gqa", self.options.gqa, *arguments]
        if self.options.ranks == 1:
            return json.loads(run([sys.executable, *command], stdin=config.removeprefix("---\n")))
        # Every rank reads the config, so it cannot come through a pipe.
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(config.removeprefix("---\n"))
            file.flush()
            return json.loads(run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                                   self.options.ranks, *command, "--config", file.name]))

    def label(self):
        ranks = f"{self.options.ranks} ranks of " if self.options.ranks > 1 else ""
        return f"{self.path.stem} {self.dtype} {ranks}{self.threads} thread{'s' if self.threads > 1 else ''}"


def median_of(runs, key):
    return statistics.median(run[key] for run in runs)


def paired(runs, ours, key):
    """Returns the speed of dsmoe divided by that of another program, median over rounds."""
    return statistics.median(it[key] / mine[key] for it, mine in zip(runs, ours))


def compiles(case):
    """Returns true if torch.compile works here (it needs g++ and Python's headers); fills its cache."""
    try:
        case.pytorch("--compile", warmup=1, repetitions=1)
    except RuntimeError as error:
        print(f"{case.label()}: torch.compile does not work here: {error}", file=sys.stderr)
        return False
    return True


def compare_speed(case):
    """Measures each program's speed and dsmoe's ratio, by wall time and by processor time (hardly changed by other work)."""
    programs = {"dsmoe": lambda: case.dsmoe("--no-memory"), "eager": case.pytorch}
    if case.options.compile and compiles(case):
        programs["compile"] = lambda: case.pytorch("--compile")
    runs = {name: [] for name in programs}
    for i in range(case.options.rounds):
        for name in list(programs) if i % 2 == 0 else reversed(programs):
            runs[name].append(programs[name]())
    tokens = runs["dsmoe"][0]["tokens_per_step"]
    result = {"case": case.label(), "mfu": median_of(runs["dsmoe"], "mfu"), "programs": {}}
    for name, mine in runs.items():
        result["programs"][name] = {
            "tokens_per_second": tokens / median_of(mine, "step_seconds"),
            "dsmoe_over_it": paired(mine, runs["dsmoe"], "step_seconds"),
            "dsmoe_over_it_cpu": paired(mine, runs["dsmoe"], "cpu_seconds"),
            "parts": {part: statistics.median(run["parts"][part] for run in mine) for part in PARTS}}
    return result


def print_speed(result):
    print(f"\n{result['case']}: MFU of dsmoe {100 * result['mfu']:.0f} %")
    print(f"  {'program':<8} {'tok/s':>8} {'dsmoe/it':>9} {'by cpu':>7} | milliseconds: " +
          " ".join(f"{part:>9}" for part in PARTS))
    for name, it in result["programs"].items():
        print(f"  {name:<8} {it['tokens_per_second']:>8.0f} {it['dsmoe_over_it']:>9.3f} "
              f"{it['dsmoe_over_it_cpu']:>7.3f} |               " +
              " ".join(f"{1e3 * it['parts'][part]:>9.1f}" for part in PARTS), flush=True)


def compare_memory(case):
    """Measures peak resident memory above that of the loaded libraries, three steps each."""
    checkpointed = "--train.checkpoint_activations=full"
    result = {"case": case.label(), "peak_memory_bytes": {
        "dsmoe": case.dsmoe("--memory-only")["peak_memory_bytes"],
        "dsmoe, checkpointed": case.dsmoe("--memory-only", checkpointed)["peak_memory_bytes"],
        "eager": case.pytorch(warmup=0, repetitions=3)["peak_memory_bytes"],
        "eager, checkpointed": case.pytorch(warmup=0, repetitions=3, overrides=[checkpointed])["peak_memory_bytes"]}}
    return result


def print_memory(result):
    print(f"\n{result['case']}: peak memory")
    eager = result["peak_memory_bytes"]["eager"]
    for name, size in result["peak_memory_bytes"].items():
        print(f"  {name:<20} {size / MIB:>7.0f} MiB, {size / eager:.3f} of eager", flush=True)


def check_losses(case):
    """Compares the first losses of both programs from the same weights on the same tokens, routers in float32."""
    case.options.routers = "float32"
    constant = ["--train.schedule.kind=constant", "--train.schedule.warmup_steps=0"]
    case.overrides += constant
    ours = case.dsmoe("--no-memory", warmup=0, repetitions=5)["losses"]
    theirs = case.pytorch(warmup=0, repetitions=5)["losses"]
    tolerance = {"float32": 1e-4, "bfloat16": 2e-2}[case.dtype]
    worst = max(abs(a - b) for a, b in zip(ours, theirs))
    print(f"\n{case.label()}: first losses")
    for name, losses in (("dsmoe", ours), ("eager", theirs)):
        print(f"  {name:<8} " + " ".join(f"{loss:.6f}" for loss in losses))
    agree = worst <= tolerance
    print(f"  largest difference {worst:.2e}, {'within' if agree else 'ABOVE'} {tolerance:.0e}", flush=True)
    return agree


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=pathlib.Path)
    parser.add_argument("--threads", default="1,2", help="comma-separated numbers of threads (default 1,2)")
    parser.add_argument("--ranks", type=int, default=1,
                        help="processes that share a step over Gloo; PyTorch uses DistributedDataParallel")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches per rank, with several ranks")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--dsmoe", type=pathlib.Path, default=ROOT / "build/dsmoe", help="the program to measure")
    parser.add_argument("--rounds", type=int, default=5, help="runs of every program (default 5)")
    parser.add_argument("--warmup", type=int, default=3, help="uncounted steps per run")
    parser.add_argument("--repetitions", type=int, default=5, help="counted steps per run")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile as a third program")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory")
    parser.add_argument("--check", action="store_true", help="compare the first losses instead of speed")
    parser.add_argument("--routers", choices=["autocast", "float32"], default="autocast",
                        help="precision of PyTorch's routers; dsmoe's logits are float32")
    parser.add_argument("--gqa", choices=["expand", "enable"], default="enable",
                        help="method of PyTorch to share key/value heads: expand them, or enable_gqa")
    parser.add_argument("--json", type=pathlib.Path, help="append every result to this file, one object a line")
    options, options.overrides = parser.parse_known_args()
    for override in options.overrides:
        if not override.startswith("--") or "=" not in override:
            parser.error(f"expected --section.key=value, got '{override}'")
    results, agree = [], True
    for path in options.configs:
        for threads in map(int, options.threads.split(",")):
            for dtype in options.dtypes.split(","):
                case = Case(path, dtype, threads, options)
                if options.check:
                    agree = check_losses(case) and agree
                    continue
                results.append(compare_speed(case))
                print_speed(results[-1])
                if options.memory:
                    results.append(compare_memory(case))
                    print_memory(results[-1])
    if options.json:
        with open(options.json, "a") as file:
            file.writelines(json.dumps(result) + "\n" for result in results)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
