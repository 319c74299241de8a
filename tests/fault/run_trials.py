#!/usr/bin/env python3
"""Trials of whole `dsmoe train` processes against a golden run: kill -9, SIGTERM, memory over many steps.

Usage: run_trials.py PATH/TO/dsmoe [--kills N] [--aimed N] [--terms N] [--memory-steps N] [--seed N]
Every trial compares all losses and the final weights, moments and state with the golden run, digit for digit.
Exits with 1 at the first difference.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

STEPS = 200
CONFIG = """\
run_dir: {run}
seed: 5
threads: 1
model:
  d_model: 12
  n_layers: 2
  max_seq_len: 16
  dropout: 0.1
  attention: {{kind: moa, head_dim: 4}}
  moa: {{n_experts: 3, heads_per_expert: 2, router: {{kind: swiglu, d_hidden: 6}}}}
  ffn: {{kind: moe}}
  moe: {{n_experts: 4, d_expert: 5, router: {{kind: swiglu, d_hidden: 6}}}}
data: {{train: {data}, validation: {data}}}
train:
  steps: {steps}
  batch_size: 2
  accumulation: 2
  compute_dtype: float32
  log_every: 1
  validate_every: 25
  save_every: 15
  keep_checkpoints: 2
  keep_every: 60
  schedule: {{kind: wsd, peak: 1.0e-2, warmup_steps: 20, decay_steps: 50}}
  guard: {{spike_window: 16, spike_z: 3.0}}
"""
# Keys of a metrics line that depend on the clock or the machine.
UNSTABLE = ("tokens_per_second", "flops_per_second", "mfu", "peak_memory_bytes", "time", "seconds")


def fail(message):
    print(f"FAILED: {message}", flush=True)
    sys.exit(1)


def is_loading(process):
    """Returns True while the system loads the program: it has neither handlers nor blocked signals."""
    try:
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            masks = dict(line.split(":") for line in status if line.startswith("Sig"))
    except OSError:
        return False
    held = int(masks.get("SigCgt", "0"), 16) | int(masks.get("SigBlk", "0"), 16)
    return not held & (1 << (signal.SIGTERM - 1))


class Trials:
    def __init__(self, dsmoe, root, seed):
        self.dsmoe, self.root, self.random = dsmoe, root, random.Random(seed)
        self.environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
        text = "".join(f"line {i * i % 97} of a small text\n" for i in range(90))
        (root / "text.txt").write_text(text)
        subprocess.run([dsmoe, "tokenize", "--input", root / "text.txt", "--tokenizer", "bytes", "--out", root / "data"],
                       check=True, capture_output=True)
        start = time.monotonic()
        self.golden = self.finish("golden")
        self.seconds = time.monotonic() - start
        state = self.state("golden")
        shutil.rmtree(root / "golden")
        print(f"golden run: {STEPS} steps in {self.seconds:.1f} s, {state['position']} sequences, "
              f"{state['skipped_steps']} steps skipped by the spike guard", flush=True)

    def config(self, name, steps=STEPS):
        path = self.root / f"{name}.yaml"
        path.write_text(CONFIG.format(run=self.root / name, data=self.root / "data", steps=steps))
        return path

    def start(self, name, *overrides, steps=STEPS):
        log = open(self.root / f"{name}.log", "a")
        return subprocess.Popen([self.dsmoe, "train", self.config(name, steps), *overrides], stdout=subprocess.DEVNULL,
                                stderr=log, env=self.environment)

    def finish(self, name):
        code = self.start(name).wait(timeout=300)
        if code != 0:
            fail(f"{name}: expected exit code 0, got {code}:\n" + (self.root / f"{name}.log").read_text()[-800:])
        return self.outcome(name)

    def checkpoints(self, name):
        return sorted((self.root / name / "checkpoints").glob("step-*"))

    def state(self, name):
        return json.loads((self.checkpoints(name)[-1] / "state-rank-00000.json").read_text())

    def outcome(self, name):
        manifest = json.loads((self.checkpoints(name)[-1] / "manifest.json").read_text())
        checksums = {tensor["name"]: tensor["checksum"] for file in manifest["files"] for tensor in file["tensors"]}
        state = {key: value for key, value in self.state(name).items() if key != "run_id"}
        lines = []
        for text in (self.root / name / "metrics.jsonl").read_text().splitlines():
            # Numbers stay text, so that the comparison is exact.
            line = json.loads(text, parse_float=str)
            # The watch's values since a start are not state of the run.
            if line.get("event") != "alarm":
                lines.append({key: value for key, value in line.items() if key not in UNSTABLE})
        return {"checksums": checksums, "state": state, "lines": lines,
                "checkpoints": [path.name for path in self.checkpoints(name)]}

    def compare(self, name, what, stops=False):
        """With stops: each stop saves another checkpoint, which displaces one of the newest."""
        outcome = self.finish(name)
        for part, expected in self.golden.items():
            if part == "checkpoints" and stops:
                outcome[part] = [step for step in outcome[part] if self.is_kept_for_ever(step)]
                expected = [step for step in expected if self.is_kept_for_ever(step)]
            if outcome[part] != expected:
                for i, line in enumerate(outcome["lines"]):
                    if i >= len(self.golden["lines"]) or line != self.golden["lines"][i]:
                        print(f"first line that differs: {line}\nexpected: {self.golden['lines'][i:i + 1]}")
                        break
                fail(f"{name} ({what}): {part} differs from the golden run")
        shutil.rmtree(self.root / name)

    @staticmethod
    def is_kept_for_ever(name):
        step = int(name.removeprefix("step-"))
        return (step > 0 and step % 60 == 0) or step == STEPS

    # --- kill -9 ---------------------------------------------------------------------------------

    def kill(self, process):
        """Returns True if the process was still running when killed."""
        if process.poll() is not None:
            if process.returncode != 0:
                fail(f"a run ended by itself with {process.returncode}")
            return False
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True

    def aim(self, name, process, target):
        """Returns when the process is about to save or to resume, or has ended."""
        if target == "resume":
            time.sleep(self.random.uniform(0.3, 1.0) * min(0.8, self.seconds / 3))
            return
        wanted = ".tmp-step-" if target == "save" else ".trash-"
        directory = self.root / name / "checkpoints"
        skip = self.random.randrange(6)  # not always the first save
        seen = set()
        while process.poll() is None and len(seen) <= skip:
            if directory.is_dir():
                seen.update(entry for entry in os.listdir(directory) if entry.startswith(wanted))
            time.sleep(0.0003)
        time.sleep(self.random.uniform(0, 0.01))

    def kills(self, count, aimed):
        done, trial = 0, 0
        targets = [["save", "resume", "prune"][i % 3] for i in range(aimed)] + ["anywhere"] * (count - aimed)
        self.random.shuffle(targets)
        start = time.monotonic()
        while targets:
            name, what = f"kill-{trial}", []
            trial += 1
            for _ in range(min(4, len(targets))):
                target = targets[-1]
                process = self.start(name)
                if target == "anywhere":
                    time.sleep(self.random.uniform(0, self.seconds))
                else:
                    self.aim(name, process, target)
                if not self.kill(process):
                    break
                done += 1
                what.append(targets.pop())
            self.compare(name, "killed " + ", ".join(what))
        print(f"kill -9: {done} kills ({aimed} aimed at save, resume and pruning) in {trial} runs; every loss, "
              f"weight, moment and state equal to the golden run; {time.monotonic() - start:.0f} s", flush=True)

    # --- SIGTERM ---------------------------------------------------------------------------------

    def terms(self, count):
        saved, finished, early, loading, slowest, oldest = 0, 0, 0, 0, 0.0, 0
        for trial in range(count):
            name = f"term-{trial}"
            process = self.start(name)
            time.sleep(self.random.uniform(0, self.seconds))
            was_loading = is_loading(process)
            process.send_signal(self.random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
            start = time.monotonic()
            code = process.wait(timeout=60)
            slowest = max(slowest, time.monotonic() - start)
            if code == 75 and not (self.root / name).exists():
                early += 1  # nothing was begun
            elif code == 75:
                saved += 1
                metrics = self.root / name / "metrics.jsonl"
                lines = metrics.read_text().splitlines() if metrics.exists() else []
                last = json.loads(lines[-1])["step"] if lines else 0
                oldest = max(oldest, last - self.state(name)["step"])
            elif code == 0:
                finished += 1
            elif code < 0 and was_loading:
                loading += 1
            else:
                fail(f"{name}: exit {code} after a stop signal")
            self.compare(name, f"stopped, exit {code}", stops=True)
        if oldest > 1 or slowest > 30:
            fail(f"after a stop signal the checkpoint was {oldest} steps old, the exit took {slowest:.1f} s")
        print(f"stop signals: {count} runs: {saved} saved and left with 75, {early} left with 75 before the first step, "
              f"{finished} had ended, {loading} were being loaded by the system; "
              f"checkpoint at most {oldest} steps old, exit within {slowest:.1f} s; all resumed to the golden run", flush=True)

    # --- memory ----------------------------------------------------------------------------------

    def memory(self, steps, policy):
        name = f"memory-{policy}"
        process = self.start(name, "--train.save_every=500", "--train.log_every=100", "--train.validate_every=1000",
                             "--train.schedule.kind=constant", f"--model.training_policy={policy}", steps=steps)
        samples, counts = [], []
        metrics = self.root / name / "metrics.jsonl"
        while process.poll() is None:
            time.sleep(0.2)
            try:
                pages = int(open(f"/proc/{process.pid}/statm").read().split()[1])
                lines = metrics.read_text().splitlines()
                step = json.loads(lines[-1])["step"]
                counts.append((len(os.listdir(f"/proc/{process.pid}/fd")), len(os.listdir(f"/proc/{process.pid}/task"))))
            except (OSError, IndexError, ValueError):
                continue
            if pages == 0:  # it has just ended
                continue
            samples.append((step, pages * os.sysconf("SC_PAGE_SIZE") / 1024))
        if process.returncode != 0:
            fail("memory: the run failed:\n" + (self.root / f"{name}.log").read_text()[-800:])
        warm = [(step, kib) for step, kib in samples if step >= steps // 5]
        slope = statistics.linear_regression([s for s, _ in warm], [k for _, k in warm]).slope
        quarter = max(1, len(counts) // 4)
        fds, tasks = [statistics.median(c[i] for c in counts[:quarter]) for i in (0, 1)]
        fds_end, tasks_end = [statistics.median(c[i] for c in counts[-quarter:]) for i in (0, 1)]
        print(f"memory, {policy}: {steps} steps, {len(warm)} samples after warm-up, {slope * 1024:.1f} bytes per step, "
              f"{warm[0][1] / 1024:.1f} to {warm[-1][1] / 1024:.1f} MiB; descriptors {fds:.0f} to {fds_end:.0f}, "
              f"threads {tasks:.0f} to {tasks_end:.0f}", flush=True)
        if slope > 1 or (fds, tasks) != (fds_end, tasks_end):
            fail("memory: expected a slope below 1 KiB per step and constant descriptors and threads")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dsmoe")
    for name in ("kills", "aimed", "terms", "memory-steps"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="dsmoe-trials-", dir=shared) as root:
        trials = Trials(os.path.abspath(options.dsmoe), pathlib.Path(root), options.seed)
        if options.kills:
            trials.kills(options.kills, options.aimed)
        if options.terms:
            trials.terms(options.terms)
        if options.memory_steps:
            trials.memory(options.memory_steps, "all")
            trials.memory(options.memory_steps, "top_k=1")  # another number of tokens per expert at every step


if __name__ == "__main__":
    main()
