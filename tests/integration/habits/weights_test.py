#!/usr/bin/env python3
"""Usage: weights_test.py PATH/TO/dsmoe

Tests that weights keep their meaning: keys that change the function of a model are copied from the checkpoint that a run starts
from, or the contradiction is named.
"""

import json

from support import CONFIG, TEXT, HabitsTest, main

SCALING = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
           "rope_type": "llama3"}

# The shape of support.llama(); positions, norms and activation are left out.
SILENT = """\
run_dir: run
seed: 1
threads: 1
data: {train: data}
train:
  steps: 1
  batch_size: 2
  validate_every: 0
  compute_dtype: float32
  schedule: {kind: constant, peak: 0.0, warmup_steps: 0}
"""

# What the checkpoint of the tests holds, and another value of the same shapes.
CONTRADICTIONS = {
    "model.rope_theta": ("500000", "10000"),
    "model.rope_scaling.kind": ("llama3", "none"),
    "model.rope_scaling.factor": ("8", "4"),
    "model.rope_scaling.original_max_seq_len": ("64", "128"),
    "model.norm": ("rms_norm", "layer_norm"),
    "model.norm_eps": ("1e-05", "1e-06"),
    "model.attention.n_heads": ("4", "2"),
    "model.attention.n_kv_heads": ("2", "1"),
    "model.attention.head_dim": ("8", "16"),
    "model.tie_embeddings": ("false", "true"),
    "model.ffn.activation": ("swiglu", "gelu"),
    "model.ffn.kind": ("dense", "moe"),
    "model.vocab_size": ("262", "263"),
}


class WeightsTest(HabitsTest):
    def llama_with_data(self, **config):
        self.llama(config={"rope_theta": 500000.0, "rope_scaling": SCALING} | config)
        self.succeeds("convert", "hf", "ck", "--threads", 1)
        self.write("text.txt", TEXT)
        self.succeeds("tokenize", "--input", "text.txt", "--tokenizer", "hf/tokenizer.json", "--out", "data", "--threads", 1)
        self.write("silent.yaml", SILENT)

    def start(self, *overrides):
        return ("train", "silent.yaml", "--train.init_from=ck", *overrides)

    def stored_model(self, run="run"):
        newest = sorted((self.directory / run / "checkpoints").iterdir())[-1]
        return json.loads((newest / "config.json").read_text())["model"]

    def test_a_config_without_model_keys_copies_the_model(self):
        self.llama_with_data()
        done = self.succeeds(*self.start())
        self.assertIn("warning: taken over from ck: ", done.stderr)
        for text in ("model.rope_theta = 500000", "model.norm_eps = 1e-05", "model.rope_scaling.kind = llama3"):
            self.assertIn(text, done.stderr)
        source = json.loads((self.directory / "ck/config.json").read_text())["model"]
        self.assertEqual(self.stored_model(), source)
        # A learning rate of zero kept the weights, so that the run computes what its source computes.
        before, after = (self.prints_json("eval", name, "--data", "text.txt", "--threads", 1) for name in ("ck", "run"))
        self.assertEqual(before["nats_total"], after["nats_total"])

    def test_every_contradiction_is_refused_by_its_key(self):
        self.llama_with_data()
        for key, (theirs, ours) in CONTRADICTIONS.items():
            with self.subTest(key=key):
                self.refused(*self.start(f"--{key}={ours}", "--run_dir=refused"),
                             says=[f"{key}: expected {theirs} as in train.init_from", f"got {ours}", "train.init_override"])
                self.succeeds(*self.start(f"--{key}={theirs}", "--run_dir=refused", "--print-config"))
        self.assertFalse((self.directory / "refused").exists())

    def test_an_override_allows_a_difference(self):
        self.llama_with_data()
        keys = ("model.rope_theta", "model.rope_scaling.kind")
        override = f"--train.init_override=[{', '.join(keys)}]"
        done = self.succeeds(*self.start("--model.rope_theta=10000", "--model.rope_scaling.kind=none", override))
        self.assertIn("model.rope_theta is 10000, in train.init_from (ck) it is 500000", done.stderr)
        self.assertEqual(self.stored_model()["rope_theta"], 10000)
        self.refused(*self.start("--train.init_override=model.rope_thets", "--run_dir=typo"), says=["train.init_override", "rope_thets"])

    def test_a_resumed_run_keeps_the_copied_keys(self):
        self.llama_with_data()
        self.succeeds(*self.start())
        (self.directory / "ck").rename(self.directory / "moved")
        done = self.succeeds(*self.start("--train.steps=2"))
        self.assertIn("resumed from", done.stderr)
        self.assertEqual(self.stored_model()["norm_eps"], 1e-5)
        self.refused(*self.start("--train.steps=3", "--model.norm_eps=1e-6"), says=["model.norm_eps"])
        self.refused(*self.start("--run_dir=elsewhere"), says=["train.init_from", "ck"])

    def test_plan_counts_the_copied_model(self):
        self.llama_with_data()
        counted = self.prints_json("plan", "silent.yaml", "--train.init_from=ck")
        self.assertEqual(counted["parameters_total"], self.prints_json("inspect", "ck")["parameters"])
        done = self.succeeds("plan", "silent.yaml", "--train.init_from=gone", "--model.vocab_size=262")
        self.assertIn("gone does not exist", done.stderr)

    def test_tokens_of_another_tokenizer_of_the_same_size_are_refused(self):
        self.write("tiny.yaml", CONFIG)
        self.write("one.txt", TEXT)
        self.write("two.txt", TEXT.translate(str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")))
        sizes = [self.prints_json("tokenize", "--input", f"{name}.txt", "--tokenizer", "train:bpe:300", "--out", name,
                                  "--threads", 1)["vocab_size"] for name in ("one", "two")]
        self.assertEqual(*sizes)
        self.succeeds("train", "tiny.yaml", "--run_dir=r1", "--data.train=one", "--train.steps=1", "--train.schedule.warmup_steps=0")
        start = ("train", "tiny.yaml", "--data.train=two", "--train.init_from=r1", "--train.steps=1", "--train.schedule.warmup_steps=0")
        for way in ("--dry-run", "--print-config", "--threads=1"):
            self.refused(*start, "--run_dir=r2", way, says=["data.train", "tokenizer", "train.init_override"])
        self.succeeds(*start, "--run_dir=r2", "--train.init_override=tokenizer")
        for command in (("eval", "r1", "--data", "two"), ("eval", "r1", "--data", "one", "--against", "r2")):
            self.refused(*command, says=["tokenizer"])
        self.refused("train", "tiny.yaml", "--run_dir=r1", "--data.train=one", "--data.validation=two", "--train.steps=2",
                     "--train.schedule.warmup_steps=0", says=["two", "tokenizer"])

    def test_convert_keeps_the_tokenizer_unless_another_is_given(self):
        self.llama()
        self.llama("other", specials=("<|eos|>", "<|bos|>"))
        self.refused("convert", "hf", "ck", "--tokenizer", "other/tokenizer.json", says=["--tokenizer", "--other-tokenizer"])
        self.succeeds("convert", "hf", "ck", "--tokenizer", "hf/tokenizer.json")
        self.refused("convert", "ck", "again", "--tokenizer", "other/tokenizer.json", says=["--tokenizer"])
        self.succeeds("convert", "ck", "again", "--tokenizer", "other/tokenizer.json", "--other-tokenizer")

    def test_keys_of_a_config_json_are_computed_refused_or_named(self):
        for key, value in (("sliding_window", 8), ("final_logit_softcapping", 30.0), ("quantization_config", {"bits": 4}),
                           ("layer_types", ["sliding_attention", "full_attention"]), ("residual_multiplier", 0.5)):
            self.llama(config={key: value})
            self.refused("convert", "hf", "ck", says=["config.json", key])
        self.llama(config={"frobnication": 3})
        done = self.succeeds("convert", "hf", "ck")
        self.assertRegex(done.stderr, "warning.*frobnication")


if __name__ == "__main__":
    main()
