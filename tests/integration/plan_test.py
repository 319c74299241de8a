#!/usr/bin/env python3
"""The planned memory of a training step against the measured peak of small configs on this CPU.

Usage: plan_test.py PATH/TO/dsmoe
"""

import json
import os
import pathlib
import subprocess
import sys
import unittest

DSMOE = os.path.abspath(sys.argv.pop(1))
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def run(*arguments):
    done = subprocess.run([DSMOE, *arguments, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class PlanTest(unittest.TestCase):
    def test_memory_is_within_10_percent_of_the_measured_peak(self):
        for config, vocab_size in (
            ("quickstart.yaml", 257),
            ("quickstart-dense.yaml", 257),
            ("partition-dense.yaml", 1024),
            ("partition.yaml", 1024),
        ):
            for recompute in ("none", "selective", "full"):
                with self.subTest(config=config, recompute=recompute):
                    options = (f"--model.vocab_size={vocab_size}", f"--train.checkpoint_activations={recompute}")
                    bench = run("bench", "--train", "--memory-only", "--threads", "1", "--config", CONFIGS / config, *options)
                    plan = run("plan", CONFIGS / config, *options)
                    measured, planned = bench["peak_memory_bytes"], plan["memory_bytes"]["peak"]
                    print(f"{config} {recompute}: planned {planned / measured:.3f} of {measured / 2**20:.1f} MiB")
                    self.assertLess(abs(planned / measured - 1), 0.1)


if __name__ == "__main__":
    unittest.main()
