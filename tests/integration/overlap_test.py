#!/usr/bin/env python3
"""Gradients of two ranks are averaged while the backward pass runs, and only in the last micro-batch.

Usage: overlap_test.py PATH/TO/dsmoe
Reads the trace of one step of several buckets, whose events the profiler stamps.
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


def traced_step():
    """(start, end) in microseconds of every all-reduce and every backward operator of one step of rank 0."""
    with tempfile.TemporaryDirectory() as root:
        path = pathlib.Path(root, "config.yaml")
        path.write_text(CONFIG.format(root=root))
        environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
        for command in (["tokenize", "--input", TEXT, "--tokenizer", "bytes", "--out", f"{root}/data"],
                        ["launch", "-n", "2", "--", "train", path]):
            done = subprocess.run([DSMOE, *command], capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr[-2000:]
        trace = json.loads(next(pathlib.Path(root, "run").glob("trace-*.json")).read_text())
    spans = {"all_reduce": [], "backward": []}
    for event in trace["traceEvents"]:
        kind = {"gloo:all_reduce": "all_reduce"}.get(event.get("name"))
        if event.get("name", "").startswith("autograd::engine::evaluate_function"):
            kind = "backward"
        if kind:
            spans[kind].append((event["ts"], event["ts"] + event["dur"]))
    return {kind: sorted(them) for kind, them in spans.items()}


class OverlapTest(unittest.TestCase):
    def test_all_reduce_begins_before_the_backward_pass_ends(self):
        spans = traced_step()
        # The longest pause between backward operators is the forward pass of the second micro-batch.
        backward = spans["backward"]
        pauses = [(later[0] - earlier[1], later[0]) for earlier, later in zip(backward, backward[1:])]
        last_begins, last_ends = max(pauses)[1], backward[-1][1]
        self.assertEqual([span for span in spans["all_reduce"] if backward[0][0] < span[0] < last_begins], [])
        early = [span for span in spans["all_reduce"] if last_begins < span[0] < last_ends]
        in_flight = sum(min(end, last_ends) - begin for begin, end in early)
        print(f"{len(early)} all-reduces began in the last backward pass of {(last_ends - last_begins) / 1e3:.1f} ms, the first "
              f"{(last_ends - early[0][0]) / 1e3:.1f} ms before its end; together {in_flight / 1e3:.1f} ms of them ran inside it"
              if early else "no all-reduce began in the backward pass")
        self.assertGreaterEqual(len(early), 5)


if __name__ == "__main__":
    unittest.main()
