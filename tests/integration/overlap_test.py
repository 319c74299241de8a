#!/usr/bin/env python3
"""Tests that two ranks average gradients during the backward pass, and only in the last micro-batch.

Usage: overlap_test.py PATH/TO/dsmoe
Reads the trace of one step of several buckets. All compared events are on one thread of rank 0, which builds the graph, runs the
backward pass and starts the all-reduces: their order depends on the code, not on the speed of the machine.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

DSMOE = os.path.abspath(sys.argv.pop(1))
TEXT = pathlib.Path(__file__).resolve().parents[2] / "data/tinyshakespeare/valid.txt"
CONFIG = """\
run_dir: {root}/run
threads: 1
model: {{d_model: 256, n_layers: 6, max_seq_len: 128, attention: {{kind: dense, head_dim: 64, n_heads: 4, n_kv_heads: 4}},
         ffn: {{kind: dense, d_ffn: 1024}}}}
data: {{train: {root}/data}}
train: {{steps: 4, batch_size: 4, accumulation: 4, trace_steps: 1, compute_dtype: float32, schedule: {{warmup_steps: 1}}}}
distributed: {{bucket_mebibytes: 1}}
"""


FORWARD, GRADIENT, ALL_REDUCE = "aten::embedding", "torch::autograd::AccumulateGrad", "c10d::allreduce_"


def traced_step():
    """Names of the events above in the order in which rank 0's thread began them, in one step of two micro-batches."""
    with tempfile.TemporaryDirectory() as root:
        path = pathlib.Path(root, "config.yaml")
        path.write_text(CONFIG.format(root=root))
        environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
        for command in (["tokenize", "--input", TEXT, "--tokenizer", "bytes", "--out", f"{root}/data"],
                        ["launch", "-n", "2", "--", "train", path]):
            done = subprocess.run([DSMOE, *command], capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr[-2000:]
        trace = json.loads(next(pathlib.Path(root, "run").glob("trace-*.json")).read_text())
    events = [event for event in trace["traceEvents"] if event.get("name") in (FORWARD, GRADIENT, ALL_REDUCE)]
    assert len({event["tid"] for event in events}) == 1
    return [event["name"] for event in sorted(events, key=lambda event: event["ts"])]


class OverlapTest(unittest.TestCase):
    def test_buckets_are_reduced_as_soon_as_their_gradients_are_ready(self):
        names = traced_step()
        second = names.index(FORWARD, names.index(FORWARD) + 1)
        self.assertEqual(names.count(FORWARD), 2)
        first_batch, last_batch = names[:second], names[second:]
        n_parameters = first_batch.count(GRADIENT)
        self.assertGreater(n_parameters, 40)
        self.assertEqual(first_batch.count(ALL_REDUCE), 0)
        self.assertEqual(last_batch.count(GRADIENT), n_parameters)
        backward = last_batch[:len(last_batch) - last_batch[::-1].index(GRADIENT)]
        early = backward.count(ALL_REDUCE)
        # Then the bucket of the last gradient, and the sums of the losses.
        self.assertEqual(last_batch.count(ALL_REDUCE), early + 2)
        # 6 layers of three MiB in buckets of at least one.
        self.assertGreaterEqual(early, 12)
        gradients = [backward[:i].count(GRADIENT) for i, name in enumerate(backward) if name == ALL_REDUCE]
        print(f"{early} all-reduces asked for before the last of {n_parameters} gradients, the first after {gradients[0]}")
        # Spread over the backward pass: none waits for more gradients than two layers have.
        steps = [later - earlier for earlier, later in zip([0, *gradients], [*gradients, n_parameters])]
        self.assertLessEqual(max(steps), n_parameters // 3)


if __name__ == "__main__":
    unittest.main()
