#!/usr/bin/env python3
"""Compares the training of two programs digit for digit: compare_training.py OLD NEW [--steps 50]

For small FFN-expert, attention-expert, partitioned, top-k and dense models, on one rank and on two: every number that OLD
writes to metrics.jsonl, --json and the console, and every tensor of the checkpoints, is the same in NEW; NEW may write more.
A run of OLD that NEW resumes half-way ends with the same bits. Ignores speeds, memory and run ids. Exits with 1 after a
difference and prints it.
"""
import argparse
import hashlib
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

MEASURED = {"tokens_per_second", "flops_per_second", "mfu", "peak_memory_bytes", "checkpoint", "run_id", "time", "seconds"}
MOST_SHOWN = 20
SHAPE = {"model.d_model": 32, "model.n_layers": 2, "model.max_seq_len": 32, "model.dropout": 0.1,
         "model.attention.head_dim": 8}
MOA = {"model.attention.kind": "moa", "model.moa.n_experts": 4, "model.moa.heads_per_expert": 2,
       "model.moa.router.d_hidden": 8}
DENSE_ATTENTION = {"model.attention.kind": "dense", "model.attention.n_heads": 4, "model.attention.n_kv_heads": 4}
MOE = {"model.ffn.kind": "moe", "model.moe.n_experts": 8, "model.moe.d_expert": 12, "model.moe.router.d_hidden": 8}
CASES = {
    "ffn": {**SHAPE, **DENSE_ATTENTION, **MOE},
    "moa": {**SHAPE, **MOA, **MOE, "train.loss.mi_scope": "global", "train.loss.switch_weight": 0.01, "train.loss.z_weight": 0.001},
    "partitioned": {**SHAPE, **DENSE_ATTENTION, "model.ffn.kind": "partitioned", "model.ffn.d_ffn": 96, "model.moe.n_experts": 8,
                    "model.moe.d_expert": 12, "model.training_policy": "threshold=0.5", "model.moe.router.kind": "linear"},
    "top-k": {**SHAPE, **MOA, **MOE, "model.training_policy": "moe:top_k=2;moa:top_k=2", "train.loss.switch_weight": 0.01,
              "train.loss.moe_mi_weight": 0, "train.loss.moa_mi_weight": 0},
    "dense": {**SHAPE, **DENSE_ATTENTION, "model.ffn.kind": "dense", "model.ffn.d_ffn": 96},
}


def train(program, directory, options, n_ranks):
    arguments = [f"--{key}={value}" for key, value in options.items()]
    launch = ["launch", "-n", str(n_ranks), "--"] if n_ranks > 1 else []
    done = subprocess.run([program, *launch, "train", "empty.yaml", *arguments, f"--run_dir={directory}", "--json"],
                          capture_output=True, text=True, cwd=directory.parent)
    if done.returncode != 0:
        sys.exit(f"{program} failed: {done.stderr[-2000:]}")
    result = next(line for line in done.stdout.splitlines() if '"loss"' in line or line.strip().endswith("{"))
    return json.loads(done.stdout[done.stdout.index("{"):] if n_ranks == 1 else result[result.index("{"):]), done.stderr


def tensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], hashlib.md5(
        data[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]]).hexdigest())
        for name, entry in header.items()}


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def terms(log):
    """Loss terms as printed, by log line: name and value without its weight; of a table, lm alone."""
    rows, has_heading = {}, False
    for line in log.splitlines():
        words = line.split()[1:]  # without the time
        if words[:2] == ["step", "lm"]:
            has_heading = True
        elif has_heading and words and re.fullmatch(r"\d+/\d+", words[0]):
            rows[words[0].split("/")[0]] = {"lm": words[1]}
    if rows:
        return rows
    found = re.findall(r"step (\d+)/\d+ \| .*?\| loss (\S+) \(([^)]*)\)", log)
    return {step: {"loss": loss, **{name: value.split("*")[0] for name, value in re.findall(r"([a-z_]+) (\S+)", text)}}
            for step, loss, text in found}


class Comparison:
    def __init__(self):
        self.n_equal = self.n_different = 0

    def check(self, what, old, new):
        self.n_equal += old == new
        if old != new:
            self.n_different += 1
            if self.n_different <= MOST_SHOWN:
                print(f"{what}: {old} became {new}")

    def objects(self, what, old, new):
        for key in old.keys() - MEASURED:
            self.check(f"{what}: {key}", old[key], new.get(key))

    def runs(self, what, old, new, first_step=0):
        # A start raises alarms again: their history is not state of the run.
        lines_of = [[line for line in lines(run) if line["step"] > first_step and (first_step == 0 or line.get("event") != "alarm")]
                    for run in (old, new)]
        self.check(f"{what}: lines of metrics.jsonl", *map(len, lines_of))
        for one, other in zip(*lines_of):
            self.objects(f"{what}: step {one['step']}", one, other)
        last = sorted((old / "checkpoints").glob("step-*"))[-1].name
        for path in sorted((old / "checkpoints" / last).iterdir()):
            other = new / "checkpoints" / last / path.name
            if path.suffix == ".safetensors":
                self.objects(f"{what}: {path.name}", tensors(path), tensors(other))
            elif path.name.startswith("state"):
                self.objects(f"{what}: {path.name}", json.loads(path.read_text()), json.loads(other.read_text()))

    def logs(self, what, old, new):
        old, new = terms(old), terms(new)
        self.check(f"{what}: log lines", old.keys(), new.keys())
        for step, printed in old.items():
            for name, value in printed.items():
                if name not in new.get(step, {name: None}):
                    continue  # another form of line
                digits = len(value.partition(".")[2])
                shown = new[step].get(name, "nan")
                # NEW may print more digits of the same number.
                same = value == shown or abs(float(value) - float(shown)) <= 0.50001 * 10.0 ** -digits
                self.check(f"{what}: step {step}: {name} as printed", value, value if same else shown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--text", type=pathlib.Path, default=pathlib.Path("data/tinyshakespeare/valid.txt"))
    options = parser.parse_args()
    old, new = str(options.old.resolve()), str(options.new.resolve())
    comparison = Comparison()
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        (root / "empty.yaml").write_text("seed: 3\n")
        subprocess.run([old, "tokenize", "--input", options.text.resolve(), "--out", root / "data"], check=True, capture_output=True)
        for case in options.cases:
            for n_ranks in (1, 2):
                config = {"data.train": "[data]", "data.validation": "data", "train.steps": options.steps, "threads": 1,
                          "train.batch_size": 2, "train.accumulation": 4, "train.log_every": 1, "train.save_every": options.steps // 2,
                          "train.validate_every": options.steps, "train.keep_checkpoints": 9, "train.schedule.warmup_steps": 5,
                          "train.schedule.peak": 0.01, **CASES[case]}
                runs = [root / f"{case}-{n_ranks}-{part}" for part in ("old", "new", "resumed")]
                before = comparison.n_different
                results = [train(program, run, config, n_ranks) for program, run in zip((old, new), runs)]
                comparison.objects(f"{case}, {n_ranks} ranks: --json", results[0][0], results[1][0])
                comparison.logs(f"{case}, {n_ranks} ranks", results[0][1], results[1][1])
                comparison.runs(f"{case}, {n_ranks} ranks", *runs[:2])
                half = sorted((runs[0] / "checkpoints").glob("step-*"))[0]
                shutil.copytree(half, runs[2] / "checkpoints" / half.name)
                train(new, runs[2], config, n_ranks)
                comparison.runs(f"{case}, {n_ranks} ranks, resumed", runs[0], runs[2], options.steps // 2)
                print(f"{case}, {n_ranks} ranks: {'the same' if comparison.n_different == before else 'DIFFERENT'}", flush=True)
    print(f"{comparison.n_equal} equal, {comparison.n_different} different")
    return 1 if comparison.n_different else 0


if __name__ == "__main__":
    sys.exit(main())
