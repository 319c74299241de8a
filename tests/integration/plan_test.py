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


# The part of a plan that stands for oneDNN's buffers was measured on CPUs with bfloat16 products. An Intel Xeon without them
# keeps about 35 MiB more (planned 0.73 to 0.88 of measured), which no plan knows yet.
HAS_BFLOAT16 = "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text()


@unittest.skipUnless(HAS_BFLOAT16, "this CPU has no AVX512-BF16, for whose products the plan was measured")
class PlanTest(unittest.TestCase):
    def test_memory_is_within_10_percent_of_the_measured_peak(self):
        for config, vocab_size in (
            ("quickstart.yaml", 257),
            ("quickstart-dense.yaml", 257),
            ("quickstart-sparse.yaml", 257),
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

    def test_memory_of_a_rank_is_within_10_percent_and_a_sharded_optimizer_saves_what_is_planned(self):
        for size in (("--train.batch_size=16",), ("--train.batch_size=2", "--model.d_model=512")):
            peaks = {}
            for sharded in ("false", "true"):
                options = ("--model.vocab_size=257", "--train.accumulation=2", f"--distributed.shard_optimizer={sharded}", *size)
                config = CONFIGS / "quickstart.yaml"
                ranks = subprocess.run(
                    [DSMOE, "launch", "-n", "2", "--", "bench", "--train", "--threads", "1", "--warmup", "1", "--repetitions", "2",
                     "--config", config, *options, "--json"], capture_output=True, text=True)
                self.assertEqual(ranks.returncode, 0, ranks.stderr)
                measured = json.loads(ranks.stdout.removeprefix("[0] "))["peak_memory_bytes"]
                planned = run("plan", config, "--gpus", "2", *options)["memory_bytes"]["peak"]
                print(f"{' '.join(size)}, sharded {sharded}: planned {planned / measured:.3f} of {measured / 2**20:.1f} MiB")
                self.assertLess(abs(planned / measured - 1), 0.1)
                peaks[sharded] = measured, planned
            saved, planned = (whole - shard for whole, shard in zip(peaks["false"], peaks["true"]))
            print(f"saved {saved / 2**20:.1f} MiB, planned {planned / 2**20:.1f}")
            # Two runs of one program differ by a few MiB; the larger model saves 15.
            self.assertLess(abs(saved - planned), 4 << 20)


if __name__ == "__main__":
    unittest.main()
