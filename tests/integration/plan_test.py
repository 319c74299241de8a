#!/usr/bin/env python3
"""Compares the planned memory of training steps with the bytes of tensors and blocks that `bench` counts.

Usage: plan_test.py PATH/TO/dsmoe
The counts are the same on every machine: they depend on the code and the config. Other memory of a process (libraries,
compiled kernels, the heap of the system) depends on the machine; it is printed and not compared.
"""

import itertools
import json
import os
import pathlib
import subprocess
import sys
import unittest

DSMOE = os.path.abspath(sys.argv.pop(1))
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
# Of a plan's formulas, which leave small temporaries out, and of the copies that a library makes of one matrix for its product.
TENSORS_TOLERANCE = 0.06
HELD_TOLERANCE = 0.08


def run(*arguments):
    done = subprocess.run([DSMOE, *arguments, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.removeprefix("[0] "))


class PlanTest(unittest.TestCase):
    def compare(self, name, measured, planned):
        mebibytes = {kind: measured[f"peak_{kind}_bytes"] / 2**20 for kind in ("tensor", "held", "memory")}
        plan = {"tensor": planned["tensors"], "held": planned["tensors"] + planned["heap"], "memory": planned["peak"]}
        print(name + ": planned over measured", ", ".join(
            f"{kind} {plan[kind] / 2**20 / size:.3f} of {size:.1f} MiB" for kind, size in mebibytes.items()), flush=True)
        with self.subTest(name):
            self.assertLess(abs(plan["tensor"] / 2**20 / mebibytes["tensor"] - 1), TENSORS_TOLERANCE)
            self.assertLess(abs(plan["held"] / 2**20 / mebibytes["held"] - 1), HELD_TOLERANCE)

    def compare_alone(self, config, *options):
        options = (*options, "--train.accumulation=1")
        measured = run("bench", "--train", "--memory-only", "--threads", "1", "--config", CONFIGS / config, *options)
        self.compare(" ".join((config, *options)), measured, run("plan", CONFIGS / config, *options)["memory_bytes"])

    def test_one_rank_in_float32(self):
        configs = {"quickstart.yaml": 257, "quickstart-dense.yaml": 257, "quickstart-sparse.yaml": 257,
                   "partition-dense.yaml": 1024, "partition.yaml": 1024}
        for (config, vocab_size), recompute in itertools.product(configs.items(), ("none", "selective", "full")):
            self.compare_alone(config, "--train.compute_dtype=float32", f"--model.vocab_size={vocab_size}",
                               f"--train.checkpoint_activations={recompute}")

    def test_one_rank_in_bfloat16(self):
        # Few tokens and blocks: most CPUs multiply bfloat16 slowly.
        configs = {"quickstart.yaml": 257, "quickstart-sparse.yaml": 257, "partition-dense.yaml": 1024}
        for (config, vocab_size), recompute in itertools.product(configs.items(), ("none", "full")):
            self.compare_alone(config, "--train.compute_dtype=bfloat16", f"--model.vocab_size={vocab_size}",
                               f"--train.checkpoint_activations={recompute}", "--train.batch_size=8", "--data.seq_len=128",
                               "--model.n_layers=2")

    def test_two_ranks(self):
        saved = {}
        for size, sharded in itertools.product(
                (("--train.batch_size=16",), ("--train.batch_size=2", "--model.d_model=512")), ("false", "true")):
            options = ("--train.compute_dtype=float32", "--model.vocab_size=257", "--train.accumulation=2",
                       f"--distributed.shard_optimizer={sharded}", *size)
            config = CONFIGS / "quickstart.yaml"
            measured = run("launch", "-n", "2", "--", "bench", "--train", "--memory-only", "--threads", "1", "--config", config,
                           *options)
            planned = run("plan", config, "--gpus", "2", *options)["memory_bytes"]
            self.compare("two ranks, " + " ".join(options), measured, planned)
            sign = 1 if sharded == "false" else -1
            for kind, number in (("measured", measured["peak_tensor_bytes"]), ("planned", planned["tensors"])):
                saved[size, kind] = saved.get((size, kind), 0) + sign * number
        for (size, kind), number in saved.items():
            # Half of the moments, to the byte but for the rounding of a shard.
            with self.subTest(f"saved, {kind}, {' '.join(size)}"):
                self.assertLess(abs(number - saved[size, "planned"]), 64 << 10)


if __name__ == "__main__":
    unittest.main()
