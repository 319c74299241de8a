#!/usr/bin/env python3
"""Runs scripts/gpu_selftest.sh to its end on a machine without a GPU. Stubs report two GPUs, run the program on the CPU and pass
or fail the tests of ops; measurements use small models. Tests the handling of results, not a device.

Usage: gpu_selftest_test.py PATH/TO/dsmoe
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

DSMOE = os.path.abspath(sys.argv.pop(1))
ROOT = pathlib.Path(__file__).resolve().parents[2]

NVIDIA_SMI = """#!/bin/sh
echo 'a stand-in, 0.0, 1 MiB'
echo 'a stand-in, 0.0, 1 MiB'
"""
# BREAK: sparse execution writes another text than dense, ranks do not start, nothing resumes, a test of an op fails.
PROGRAM = f"""#!/bin/bash
arguments=("${{@//--device=cuda/--device=cpu}}")
for i in "${{!arguments[@]}}"; do [ "${{arguments[i]}}" != cuda ] || arguments[i]=cpu; done
if [ -n "$BREAK" ]; then
  [ "$1" != launch ] || {{ echo 'no ranks here' >&2; exit 1; }}
  [[ "$*" != *halves*train.steps=20* ]] || {{ echo 'no resuming here' >&2; exit 1; }}
fi
if [[ "$*" = 'bench --config '* ]]; then
  # Most of a run measures the machine: the first result is reused for all.
  [ -e decode.json ] || {DSMOE} "${{arguments[@]}}" > decode.json || exit
  exec cat decode.json
fi
{DSMOE} "${{arguments[@]}}" || exit
case "$BREAK $*" in 'yes generate '*'--execution sparse'*) echo more ;; esac
"""
TEST_DEVICE = """#!/bin/sh
echo "$DSMOE_TEST_DEVICE $DSMOE_CUDA_MODULE $*" >> calls
[ -n "$BREAK" ] || { echo 'All tests passed (3 assertions in 2 test cases)'; exit 0; }
printf 'op_test.cpp:7: FAILED:\\n  CHECK( a == b )\\ntest cases: 2 | 1 passed | 1 failed\\nassertions: 3 | 2 passed | 1 failed\\n'
exit 1
"""
# The models, small enough for this machine.
SMALLER = (("d_model: 192", "d_model: 48"), ("batch_size: 16", "batch_size: 4"), ("vocab_size: 50295", "vocab_size: 64"), ("d_model: 2048", "d_model: 32"), ("n_layers: 24", "n_layers: 1"),
           ("max_seq_len: 2048", "max_seq_len: 1152"), ("head_dim: 64", "head_dim: 8"), ("d_expert: 256", "d_expert: 4"),
           ("d_hidden: 256", "d_hidden: 8"), ("d_ffn: 8192", "d_ffn: 128"))


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class GpuSelftest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        shutil.copytree(ROOT / "scripts", self.folder / "scripts")
        (self.folder / "data").symlink_to(ROOT / "data")
        (self.folder / "configs").mkdir()
        for name in ("quickstart.yaml", "dense_1b.yaml", "ds_moe_1b.yaml"):
            text = (ROOT / "configs" / name).read_text()
            for old, new in SMALLER:
                text = text.replace(old, new)
            (self.folder / "configs" / name).write_text(text)
        write_program(self.folder / "bin/nvidia-smi", NVIDIA_SMI)
        write_program(self.folder / "build-cuda/dsmoe", PROGRAM)
        write_program(self.folder / "build-cuda/tests/test_device", TEST_DEVICE)

    def run_script(self, *options, broken=""):
        """Its exit code, and its report's rows: [(check, result, detail)]."""
        environment = {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "BREAK": broken}
        done = subprocess.run([self.folder / "scripts/gpu_selftest.sh", "--no-build", *options], cwd=self.folder, env=environment,
                              capture_output=True, text=True)
        self.output = done.stdout + done.stderr
        report = (self.folder / "gpu_report.md").read_text()
        rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in report.splitlines() if line.startswith("|")]
        return done.returncode, rows[2:]

    def failed(self, rows):
        return [row[0] for row in rows if row[1] == "fail"]

    def test_runs_to_its_end(self):
        code, rows = self.run_script("20")
        self.assertEqual(self.failed(rows), [], self.output)
        self.assertEqual(code, 0, self.output)
        details = {row[0]: row[2] for row in rows}
        self.assertEqual(details["every op against its float64 reference"], "All tests passed (3 assertions in 2 test cases)")
        self.assertEqual((self.folder / "calls").read_text().splitlines(),
                         ["cuda build-cuda/dsmoe_cuda.so [device_ops]", "cuda build-cuda/dsmoe_cuda.so [device_kernels]"])
        for check in ("losses of one GPU beside the CPU, float32", "losses in bfloat16 beside float32",
                      "losses of a run that was resumed", "losses of 2 GPUs over NCCL beside one"):
            self.assertRegex(details[check], r"^20 steps, last losses \d+\.\d+ and \d+\.\d+, largest difference \d")
        steps = [row[2] for row in rows if row[0] == "training step"]
        self.assertEqual(len(steps), 2)
        for step, name in zip(steps, ("dense_1b", "ds_moe_1b")):
            self.assertRegex(step, rf"^{name}: [\d.]+ ms a step of 4608 tokens, .* MFU of that [\d.]+ %.* step over the dense baseline's \d")
        decoding = [row[2] for row in rows if re.search(r", batch [18]$", row[0])]
        self.assertEqual(len(decoding), 6)
        for text in decoding:
            self.assertRegex(text, r"^prompt of 1024: \d+ tokens/s; decode: [\d.]+ tokens/s, \d+ GB/s of weights$")

    def test_a_failed_check_is_a_row_and_the_exit_code(self):
        code, rows = self.run_script("--quick", "20", broken="yes")
        self.assertEqual(self.failed(rows), [
            "every op against its float64 reference", "training, generation and recorded decoding against the CPU",
            "losses of a run that was resumed", "training on 2 GPUs",
            *(f"text of sparse and dense execution, {policy}" for policy in ("all", "top_k=2", "threshold=0.3"))], self.output)
        self.assertEqual(code, 1)


if __name__ == "__main__":
    unittest.main()
