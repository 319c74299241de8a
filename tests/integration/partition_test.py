#!/usr/bin/env python3
"""Tests that a small dense model, cut into experts and trained for seconds, shows the effects of arXiv:2502.12455.

Usage: partition_test.py PATH/TO/dsmoe
"""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
DSMOE = os.path.abspath(sys.argv.pop(1))

CONFIG = """\
run_dir: {run}
seed: 3
threads: 1
model:
  d_model: 32
  n_layers: 2
  max_seq_len: 32
  training_policy: {policy}
  attention: {{kind: dense, head_dim: 4, n_heads: 1, n_kv_heads: 1}}
{ffn}
data:
  train: {train}
train:
  steps: {steps}
  batch_size: 16
  compute_dtype: float32
  init_from: "{init}"
  log_every: 50
  save_every: 0
  schedule: {{peak: 1.0e-2, warmup_steps: 20}}
"""
DENSE = "  ffn: {kind: dense, activation: swiglu, d_ffn: 128}"
PARTITIONED = """\
  ffn: {{kind: partitioned, activation: swiglu}}
  moe: {{n_experts: 8, d_expert: 16, router: {{kind: linear}}}}
  partition: {{ste: {ste}}}"""


def do(*arguments):
    done = subprocess.run([DSMOE, *map(str, arguments), "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class PartitionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-partition-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        text = (SOURCE / "data/tinyshakespeare/train.txt").read_text()
        cls.train_text, cls.text = cls.directory / "train.txt", cls.directory / "text.txt"
        cls.train_text.write_text(text[:300_000])
        cls.text.write_text(text[300_000:310_000])
        cls.shards = cls.directory / "shards"
        do("tokenize", "--input", cls.train_text, "--tokenizer", "bytes", "--out", cls.shards)
        cls.train("dense", DENSE, policy="all", init="", steps=250)
        do("convert", cls.directory / "dense", cls.directory / "cut", "--partition", "n_experts=8,router_std=0.3")
        for name, policy, ste in (
            ("ste", "threshold=0.5", True),
            ("no-ste", "threshold=0.5", False),
            ("no-threshold", "all", True),
        ):
            ffn = PARTITIONED.format(ste=str(ste).lower())
            cls.train(name, ffn, policy=policy, init=cls.directory / "cut", steps=120)

    @classmethod
    def train(cls, name, ffn, **values):
        config = cls.directory / f"{name}.yaml"
        config.write_text(CONFIG.format(run=cls.directory / name, train=cls.shards, ffn=ffn, **values))
        do("train", config)

    @classmethod
    def evaluate(cls, name, threshold):
        return do("eval", cls.directory / name, "--data", cls.text, "--policy", f"threshold={threshold}")

    def test_a_higher_threshold_uses_less_and_costs_quality_above_that_of_training(self):
        sweep = [self.evaluate("ste", t) for t in (0, 1e-9, 0.3, 0.5, 0.6, 0.7, 0.8, 1)]
        parameters = [quality["active_parameters"] for quality in sweep]
        self.assertEqual(parameters, sorted(parameters, reverse=True))
        self.assertEqual([sweep[i]["active_experts"]["moe"] for i in (0, 1, -1)], [8, 8, 0])
        self.assertTrue(0.5 < sweep[3]["active_experts"]["moe"] < 7)
        beyond = [quality["perplexity"] for quality in sweep[3:]]
        self.assertEqual(beyond, sorted(beyond))
        self.assertGreater(beyond[3], 1.5 * beyond[0])
        self.assertTrue(all(math.isfinite(quality["perplexity"]) for quality in sweep))

    def test_without_straight_through_gates_close_and_quality_is_lost(self):
        paper, ablated = self.evaluate("ste", 0.5), self.evaluate("no-ste", 0.5)
        self.assertLess(ablated["active_experts"]["moe"], 0.5 * paper["active_experts"]["moe"])
        self.assertGreater(ablated["perplexity"], 1.1 * paper["perplexity"])

    def test_without_threshold_in_training_equal_activation_is_worse(self):
        paper = self.evaluate("ste", 0.5)
        low, high = 0.0, 0.5  # thresholds with more experts than paper's, and with at most so many
        for _ in range(7):
            middle = (low + high) / 2
            if self.evaluate("no-threshold", middle)["active_experts"]["moe"] > paper["active_experts"]["moe"]:
                low = middle
            else:
                high = middle
        for threshold in (low, high):
            self.assertGreater(self.evaluate("no-threshold", threshold)["perplexity"], 1.05 * paper["perplexity"])

    def test_map_of_layers_by_texts_has_the_numbers_of_eval(self):
        other = self.directory / "other.txt"
        other.write_text("".join(f"{i} {i * i}\n" for i in range(400)))
        svg = self.directory / "map.svg"
        texts = (self.text, other)
        command = [SOURCE / "scripts/expert_map.py", self.directory / "ste", *texts, "--dsmoe", DSMOE, "--svg", svg]
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.strip().splitlines()]
        self.assertEqual(rows[0], ["FFN layer", "text", "other"])
        for column, text in enumerate(texts, start=1):
            quality = do("eval", self.directory / "ste", "--data", text)
            layers = [layer["active"] for layer in quality["expert_use"]["moe"]]
            mean = quality["active_experts"]["moe"]
            self.assertEqual([row[column] for row in rows[2:5]], [f"{count:.2f}" for count in (*layers, mean)])
        self.assertNotEqual(rows[4][1], rows[4][2])
        picture = svg.read_text()
        for count in (cell for row in rows[2:4] for cell in row[1:]):
            self.assertIn(f">{count}</text>", picture)


if __name__ == "__main__":
    unittest.main()
