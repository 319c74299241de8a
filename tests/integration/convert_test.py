#!/usr/bin/env python3
"""Tests conversion: imports a dense model, cuts it into experts, trains it, runs it sparsely, and exports the same bytes.

Usage: convert_test.py PATH/TO/dsmoe
"""

import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

DSMOE = os.path.abspath(sys.argv.pop(1))

CONFIG = """\
run_dir: {run}
seed: 3
threads: 1
model:
  d_model: 16
  n_layers: 2
  max_seq_len: 16
  training_policy: {policy}
  attention: {{kind: dense, head_dim: 4, n_heads: 4, n_kv_heads: 2}}
{ffn}
data:
  train: {train}
train:
  steps: 8
  batch_size: 2
  compute_dtype: float32
  init_from: "{init}"
  log_every: 4
  save_every: 4
  schedule: {{peak: 1.0e-2, warmup_steps: 2}}
"""
FFN = {
    "dense": "  ffn: {kind: dense, activation: swiglu, d_ffn: 24}",
    "partitioned": """\
  ffn: {kind: partitioned, activation: swiglu}
  moe: {n_experts: 4, d_expert: 6, router: {kind: linear}}""",
}


def run(*arguments):
    return subprocess.run([DSMOE, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def read_safetensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return {name: data[8 + size + e["data_offsets"][0] : 8 + size + e["data_offsets"][1]] for name, e in header.items()}


def peak_bytes(*arguments):
    """Peak resident memory of one dsmoe command."""
    process = subprocess.Popen([DSMOE, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return usage.ru_maxrss * 1024


def write_llama(directory, n_layers, d_model=256, d_ffn=1024, vocab_size=257):
    """A Hugging Face LLaMA of repeated numbers; returns the bytes of its weights."""
    directory.mkdir()
    config = {"model_type": "llama", "hidden_size": d_model, "intermediate_size": d_ffn, "num_hidden_layers": n_layers}
    config |= {"num_attention_heads": 4, "vocab_size": vocab_size, "max_position_embeddings": 16}
    (directory / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    shapes = {"model.embed_tokens.weight": [vocab_size, d_model], "model.norm.weight": [d_model]}
    for i in range(n_layers):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}self_attn.{p}_proj.weight": [d_model, d_model] for p in "qkvo"}
        shapes |= {f"{layer}mlp.{p}_proj.weight": [d_ffn, d_model] for p in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = [d_model, d_ffn]
        shapes |= {f"{layer}{p}_layernorm.weight": [d_model] for p in ("input", "post_attention")}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    block = struct.pack("<256f", *(0.05 * math.sin(i) for i in range(256)))
    with open(directory / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, end, 1 << 20):
            out.write((block * 1024)[: min(1 << 20, end - begin)])
    return end


class ConvertTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-convert-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.text = cls.directory / "text.txt"
        cls.text.write_text("".join(f"line {i * i % 97} of a small text\n" for i in range(60)))
        cls.shards = cls.directory / "shards"
        cls.do("tokenize", "--input", cls.text, "--tokenizer", "bytes", "--out", cls.shards)
        cls.train("dense", kind="dense", policy="all", init="")

    @classmethod
    def do(cls, *arguments):
        done = run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @classmethod
    def train(cls, name, kind, **values):
        config = cls.directory / f"{name}.yaml"
        config.write_text(CONFIG.format(run=cls.directory / name, train=cls.shards, ffn=FFN[kind], **values))
        return cls.do("train", config)

    def test_a_cut_model_trains_runs_and_exports_as_dense(self):
        dense, cut, joined = (self.directory / name for name in ("dense", "cut", "joined"))
        result = self.do("convert", dense, cut, "--partition", "n_experts=4,seed=5", "--text", self.text)
        self.assertIn("must be trained on", result["warning"])
        self.assertEqual(result["tensors_written"], result["tensors_read"] + 2)
        self.assertAlmostEqual(result["forced_gates_perplexity"], result["source_perplexity"], delta=1e-4)
        self.assertLess(result["max_abs_logit_error"], 1e-5)
        self.assertNotAlmostEqual(result["perplexity"], result["source_perplexity"], delta=1e-3)

        export = self.do("export", cut, joined, "--to", "hf-llama", "--text", self.text)
        self.assertEqual(export["compared"], "every gate at 1, without routers")
        own = export["own_policy"]
        self.assertAlmostEqual(own["perplexity"], result["source_perplexity"], delta=1e-4)
        self.assertAlmostEqual(own["own_perplexity"], result["perplexity"], delta=1e-4)
        self.assertGreater(own["kl_divergence"], 1e-6)  # of a model of a few steps
        plain = self.do("export", dense, self.directory / "plain", "--to", "hf-llama")
        self.assertEqual(plain["compared"], "the model")
        self.assertNotIn("own_policy", plain)
        drawn = run("export", cut, self.directory / "drawn", "--to", "hf-llama").stdout
        self.assertIn("every gate at 1", drawn)
        self.assertIn("random tokens (--text", drawn)
        self.assertEqual(
            read_safetensors(joined / "model.safetensors"),
            read_safetensors(self.directory / "plain" / "model.safetensors"),
        )
        back = self.directory / "back"
        self.do("convert", joined, back, "--tokenizer", "bytes")
        quality = self.do("eval", back, "--data", self.text)
        self.assertAlmostEqual(quality["perplexity"], result["source_perplexity"], delta=1e-4)

        self.train("trained", kind="partitioned", policy="threshold=0.5", init=cut)
        lines = [json.loads(line) for line in (self.directory / "trained/metrics.jsonl").read_text().splitlines()]
        events = [line for line in lines if "event" in line]
        self.assertTrue(all("no token used an expert" in event["text"] for event in events), events)
        lines = [line for line in lines if "event" not in line]
        self.assertTrue(all(0 < line["sparsity"] < 1 for line in lines))
        self.assertNotIn("moe_mi", lines[0])
        counts = []
        for policy in ("threshold=0.3", "threshold=0.5", "threshold=0.7"):
            sparse, dense_run = (
                self.do("eval", self.directory / "trained", "--data", self.text, "--policy", policy, "--execution", execution)
                for execution in ("sparse", "dense")
            )
            self.assertAlmostEqual(sparse["nats_total"], dense_run["nats_total"], delta=1e-2)
            self.assertEqual(sparse["active_experts"], dense_run["active_experts"])
            counts.append(sparse["active_parameters"])
        self.assertEqual(counts, sorted(counts, reverse=True))
        self.assertEqual(self.do("eval", self.directory / "trained", "--data", self.text)["policy"], "threshold=0.5")
        made = self.do("generate", self.directory / "trained", "--prompt", "line", "--max-tokens", "8")
        self.assertLessEqual(made["active_experts"]["moe"], 4)

    def test_statistics_of_gates_add_up(self):
        cut = self.directory / "counted"
        self.do("convert", self.directory / "dense", cut, "--partition", "n_experts=4")
        quality = self.do("eval", cut, "--data", self.text, "--policy", "threshold=0.5")
        layers = quality["expert_use"]["moe"]
        self.assertEqual(len(layers), 2)
        active = [sum(layer["tokens_per_expert"]) / quality["tokens_scored"] for layer in layers]
        for layer, mean in zip(layers, active):
            self.assertAlmostEqual(layer["active"], mean, delta=0.01 * mean)
            self.assertTrue(0 < layer["without"] < 1)
            self.assertTrue(0.5 < layer["mean_weight"] < 1)
        self.assertAlmostEqual(quality["active_experts"]["moe"], sum(layer["active"] for layer in layers) / 2)
        everything = self.do("eval", cut, "--data", self.text, "--policy", "threshold=0")["expert_use"]["moe"]
        self.assertTrue(all(layer["active"] == 4 and layer["without"] == 0 for layer in everything))
        nothing = self.do("eval", cut, "--data", self.text, "--policy", "threshold=1")
        self.assertTrue(all(layer["active"] == 0 and layer["without"] == 1 for layer in nothing["expert_use"]["moe"]))
        self.assertTrue(nothing["perplexity"] < 1000)

    def test_conversion_holds_one_tensor_at_a_time(self):
        small, large = self.directory / "hf-small", self.directory / "hf-large"
        write_llama(small, n_layers=1)
        n_bytes = write_llama(large, n_layers=28)
        self.assertGreater(n_bytes, 80e6)
        options = ("--tokenizer", "bytes", "--partition", "n_experts=8,method=random", "--threads", "1")
        base = peak_bytes("convert", small, self.directory / "cut-small", *options)
        peak = peak_bytes("convert", large, self.directory / "cut-large", *options)
        self.assertLess(peak - base, n_bytes / 8)
        self.assertTrue(self.do("inspect", self.directory / "cut-large")["valid"])

    def test_invalid_input_is_refused_in_one_line(self):
        dense = self.directory / "dense"
        for arguments, expected in (
            (("convert", dense, "x", "--partition", "n_experts=5"), "does not divide the FFN width 24"),
            (("convert", dense, self.directory), "exists"),
            (("convert", dense, "x", "--partition", "experts=4"), "--partition"),
            (("convert", self.text, "x", "--tokenizer", "bytes"), "llama2.c"),
            (("convert", self.directory / "none", "x"), "expected a model"),
            (("export", dense, "x", "--to", "onnx"), "hf-llama"),
            (("export", dense, "x", "--to", "hf-llama", "--dtype", "int4"), "--dtype"),
            (("export", dense, "x", "--to", "hf-llama", "--text", self.text), "--text"),
        ):
            done = run(*arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(expected, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertFalse(pathlib.Path("x").exists())


if __name__ == "__main__":
    unittest.main()
