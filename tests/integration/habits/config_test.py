#!/usr/bin/env python3
"""Usage: config_test.py PATH/TO/dsmoe

Tests what a person does with configs: names of other programs, faults of a file, units, init, split data, dry runs.
"""

import json
import re
import shutil

from support import CONFIG, TEXT, HabitsTest, main

# As a user of nanoGPT writes it.
NANO = """\
out_dir: nano
n_layer: 2
n_head: 4
n_embd: 32
block_size: 64
max_iters: 4
learning_rate: 1e-3
warmup_iters: 1
batch_size: 8
dtype: float32
data: {train: data}
"""


class ConfigTest(HabitsTest):
    def setUp(self):
        super().setUp()
        self.write("text.txt", TEXT)
        self.write("tiny.yaml", CONFIG)

    def tokenize(self, *options):
        return self.prints_json("tokenize", "--input", "text.txt", "--out", "data", "--threads", 1, *options)

    def faults(self, *arguments):
        done = self.run_dsmoe(*arguments)
        self.assertEqual(done.returncode, 2, done.stderr)
        return [line.removeprefix("dsmoe: ") for line in done.stderr.splitlines() if line.startswith("dsmoe: ")]

    def test_a_config_of_another_program_trains_and_each_name_is_noted(self):
        self.tokenize()
        self.write("nano.yaml", NANO)
        done = self.succeeds("train", "nano.yaml", "--val=text.txt", "--n_layer=1")
        for note in ("nano.yaml:2: n_layer is read as model.n_layers: 2", "nano.yaml:7: learning_rate is read as train.schedule.peak",
                     "--val is read as data.validation: text.txt", "--n_layer is read as model.n_layers: 1"):
            self.assertIn(note, done.stderr)
        stored = (self.directory / "nano/config.yaml").read_text()
        for line in ("n_layers: 1", "kind: dense", "n_heads: 4", "head_dim: 8", "peak: 0.001", "steps: 4"):
            self.assertIn(line, stored)
        # The stored config is a config, and the same run.
        again = self.prints_json("train", "nano/config.yaml")
        self.assertEqual(again["step"], 4)

    def test_every_fault_of_a_file_has_a_line(self):
        self.write("bad.yaml", CONFIG.replace("d_model: 64", "d_modl: 64").replace("steps: 12", "steps: many") + "stps: 3\n")
        lines = self.faults("train", "bad.yaml", "--train.batch_size=0")
        self.assertEqual(len(lines), 5, lines)
        self.assertTrue(lines[0].startswith("bad.yaml:5: model.d_modl: unknown key; the nearest is model.d_model"))
        self.assertTrue(lines[1].startswith("bad.yaml:14: train.steps: expected an integer, got 'many'"))
        self.assertTrue(lines[2].startswith("bad.yaml:21: stps: unknown key; the nearest is train.steps"))
        self.assertTrue(lines[3].startswith("--train.batch_size: expected a value in"))
        self.assertEqual(lines[4], "bad.yaml: 4 errors")
        for command in (("plan", "bad.yaml"), ("bench", "--train", "--config", "bad.yaml"), ("bench", "--config", "bad.yaml")):
            self.assertIn("bad.yaml: 3 errors", self.faults(*command))

    def test_a_key_of_an_unused_kind_is_refused(self):
        self.tokenize()
        for command in (("train", "tiny.yaml"), ("train", "tiny.yaml", "--dry-run"), ("plan", "tiny.yaml", "--model.vocab_size=257")):
            self.refused(*command, "--model.attention.n_heads=4",
                         says=["--model.attention.n_heads", "it needs model.attention.kind: dense"])
        self.assertFalse((self.directory / "run").exists())

    def test_units_are_printed_and_stored_as_steps_and_the_same_command_resumes(self):
        self.tokenize()
        self.write("units.yaml", CONFIG.replace("steps: 12", "epochs: 0.1\n  batch_tokens: 1k").replace("warmup_steps: 4", "warmup: 50%"))
        done = self.succeeds("train", "units.yaml", "--json")
        result = json.loads(done.stdout)
        self.assertRegex(done.stderr, r"train\.accumulation = 2: batch_tokens = 1000")
        self.assertRegex(done.stderr, r"train\.steps = \d+: epochs = 0\.1")
        stored = (self.directory / "run/config.yaml").read_text()
        self.assertIn(f"steps: {result['step']}", stored)
        self.assertIn("accumulation: 2", stored)
        self.assertIn("epochs: 0", stored)
        self.assertEqual(self.prints_json("train", "units.yaml")["step"], result["step"])
        longer = self.prints_json("train", "units.yaml", f"--train.steps={result['step'] + 1}")
        self.assertEqual(longer["step"], result["step"] + 1)
        self.refused("train", "units.yaml", "--train.tokens=1M", "--train.steps=3", says=["--train.tokens", "contradicts train.steps"])

    def test_a_dry_run_checks_and_writes_nothing(self):
        self.tokenize("--validation", "5%")
        start = ("train", "tiny.yaml", "--data.train=data/train", "--data.validation=data/valid")
        summary = self.prints_json(*start, "--dry-run")
        self.assertEqual(summary["tokens_per_step"], 8 * 64)
        self.assertEqual(summary["steps"], 12)
        self.assertEqual(summary["tokens"], 12 * 8 * 64)
        self.assertAlmostEqual(summary["epochs"], summary["tokens"] / summary["data_tokens"])
        self.assertEqual((summary["ranks"], summary["threads"], summary["device"]), (1, 1, "cpu"))
        self.assertTrue(summary["fits_memory"] and summary["fits_disk"])
        self.assertGreater(summary["machine_memory_bytes"], summary["memory_bytes"])
        self.assertIsNone(summary["gpu_memory_bytes"])
        self.assertIsNone(summary["resumed_from"])
        text = self.succeeds(*start, "--dry-run").stdout
        for word in ("parameters", "epochs", "memory", "checkpoints"):
            self.assertIn(word, text)
        self.assertFalse((self.directory / "run").exists())

        self.refused(*start, "--dry-run", "--data.validation=gone.txt", says=["gone.txt"])
        self.refused(*start, "--dry-run", "--resume=gone", says=["gone"])
        self.refused(*start, "--dry-run", "--device=cuda")
        wide = ("--model.d_model=65536", "--model.moe.d_expert=65536", "--model.n_layers=64")
        done = self.run_dsmoe(*start, "--dry-run", "--json", *wide)
        self.assertEqual(done.returncode, 2)
        self.assertFalse(json.loads(done.stdout)["fits_memory"])
        self.assertIn("expected memory of at most", done.stderr)

        self.succeeds(*start)
        self.assertEqual(self.prints_json(*start, "--dry-run", "--train.steps=20")["step"], 12)
        self.refused(*start, "--dry-run", "--train.batch_size=4", says=["train.batch_size: expected 8 as in the checkpoint"])

    def test_text_in_place_of_shards_is_answered_with_the_command_that_makes_them(self):
        done = self.refused("train", "tiny.yaml", "--data.train=text.txt", says=["data.train: 'text.txt' is a file"])
        command = re.search(r"run 'dsmoe (tokenize [^']*)'", done.stderr).group(1)
        sets = re.search(r"set (data\.train): (\S+) and (data\.validation): (\S+)", done.stderr).groups()
        self.succeeds(*command.split())
        self.succeeds("train", "tiny.yaml", "--train.steps=1", "--train.schedule.warmup_steps=0", f"--{sets[0]}={sets[1]}", f"--{sets[2]}={sets[3]}")

    def test_tokenize_splits_and_reports_both(self):
        whole = self.tokenize()
        shutil.rmtree(self.directory / "data")
        made = self.tokenize("--validation", "5%")
        self.assertEqual(made["tokens"], whole["tokens"])
        self.assertEqual(made["train"]["tokens"] + made["validation"]["tokens"], whole["tokens"])
        self.assertEqual(made["validation"]["path"], "data/valid")
        self.assertAlmostEqual(made["validation"]["tokens"] / whole["tokens"], 0.05, delta=0.001)
        for share in ("0", "100%", "x", "-5%", "5 tokens"):
            self.refused("tokenize", "--input", "text.txt", "--out", "other", f"--validation={share}", says=["--validation"])
        self.assertFalse((self.directory / "other").exists())

    def test_init_writes_a_config_that_trains(self):
        self.tokenize("--validation", "5%")
        made = self.prints_json("init", "--params", "1M", "--tokens", "20k", "--data", "data", "--out", "mine.yaml")
        self.assertAlmostEqual(made["parameters_total"], 1e6, delta=5e4)
        self.assertEqual(made["path"], "mine.yaml")
        dry = self.succeeds("train", "mine.yaml", "--dry-run", "--json")
        self.assertNotIn("is read as", dry.stderr)
        summary = json.loads(dry.stdout)
        for key in ("parameters_total", "steps", "tokens", "tokens_per_step", "warmup_steps"):
            self.assertEqual(summary[key], made[key], key)
        self.refused("init", "--params", "1M", "--tokens", "20k", "--out", "mine.yaml", says=["mine.yaml"])
        printed = self.succeeds("init", "--params", "2M", "--tokens", "20k", "--style", "dense").stdout
        self.assertTrue((self.directory / "dense-2m.yaml").exists())
        for text in ("dense-2m.yaml: ", "memory", "dsmoe train dense-2m.yaml --dry-run"):
            self.assertIn(text, printed)

        self.succeeds("train", "mine.yaml", "--train.tokens=3k", "--run_dir=first", "--train.compute_dtype=float32")
        on = self.prints_json("init", "--from", "first", "--tokens", "5k", "--data", "data", "--out", "on.yaml")
        self.assertEqual(on["parameters_total"], made["parameters_total"])
        self.assertNotIn("model:", (self.directory / "on.yaml").read_text())
        self.succeeds("train", "on.yaml", "--run_dir=second", "--train.compute_dtype=float32")
        for arguments, says in ((("--tokens", "1M"), "--params"), (("--params", "x", "--tokens", "1M"), "--params"),
                                (("--params", "1M", "--tokens", "1M", "--style", "x"), "--style"), (("--params", "9M", "--tokens", "5k", "--from", "first"), "--from")):
            self.refused("init", *arguments, says=[says])


if __name__ == "__main__":
    main()
