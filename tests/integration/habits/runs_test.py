#!/usr/bin/env python3
"""Tests runs started by a scheduler or a shell: again after their end, and with ~ and variables in paths.

Usage: runs_test.py PATH/TO/dsmoe
"""

import json
import os

from support import HabitsTest, main


class RunsTest(HabitsTest):
    def train(self, *overrides):
        return self.succeeds("train", "tiny.yaml", "--run_dir=run", "--data.train=run-data", *overrides, "--json")

    def test_a_finished_run_that_is_started_again_reports_its_last_numbers(self):
        validation = ("--data.validation=run-data", "--train.validate_every=7")
        self.tiny_run("run", "--train.steps=1", "--train.schedule.warmup_steps=1", *validation)
        first = json.loads(self.train(*validation).stdout)  # to step 12
        self.assertEqual(first["step"], 12)
        self.assertEqual(first["tokens"], 12 * 8 * 64)
        metrics = (self.directory / "run" / "metrics.jsonl").read_text()
        again = self.train(*validation)
        self.assertEqual(json.loads(again.stdout), first)
        self.assertRegex(again.stderr, r"the run is finished: it has 12 steps, train\.steps = 12, its last loss is \d")
        self.assertEqual((self.directory / "run" / "metrics.jsonl").read_text(), metrics)

        # Numbers that are not kept are null, never 0.
        (self.directory / "run" / "metrics.jsonl").unlink()
        lost = json.loads(self.train(*validation).stdout)
        self.assertEqual((lost["step"], lost["tokens"], lost["validation_loss"]), (12, first["tokens"], first["validation_loss"]))
        for key in ("loss", "lm_loss", "moe_mi", "moa_mi", "tokens_per_second", "mfu", "peak_memory_bytes"):
            self.assertIsNone(lost[key], key)
        self.assertEqual(lost["loss_weights"], {})
        more = json.loads(self.train(*validation, "--train.steps=13").stdout)
        self.assertEqual(more["step"], 13)

    def test_tilde_and_variables_in_paths_are_expanded_and_never_make_a_directory(self):
        home = self.directory / "home"
        home.mkdir()
        environment = {**os.environ, "HOME": str(home), "DISK": str(self.directory / "disk")}
        environment.pop("NO_SUCH_VARIABLE", None)
        self.tiny_run("run", "--train.steps=1", "--train.schedule.warmup_steps=1")
        (self.directory / "run-data").rename(home / "data")
        config = (self.directory / "tiny.yaml").read_text().replace("run_dir: run\n", "run_dir: ~/a\n").replace("{train: data}", "{train: [~/data]}")
        self.write("home.yaml", config)
        short = ("--train.steps=1", "--train.schedule.warmup_steps=1")
        self.succeeds("train", "home.yaml", *short, env=environment)
        self.assertTrue((home / "a" / "metrics.jsonl").exists())
        self.succeeds("train", "home.yaml", "--run_dir=${DISK}/$DISK", "--data.train=~/data", f"--train.init_from=~/a", *short, env=environment)
        self.assertTrue((self.directory / f"disk/{self.directory}/disk" / "metrics.jsonl").exists())
        printed = self.succeeds("train", "home.yaml", "--run_dir=~/$$x", "--print-config", env=environment).stdout
        self.assertIn(f'run_dir: "{home}/$$x"', printed)  # as it reads back
        self.assertIn(f'train: ["{home}/data"]', printed)

        def refused(override, *says):
            self.refused("train", "home.yaml", override, *short, says=says, env=environment)

        refused("--run_dir=~ada/x", "--run_dir", "~ada/x")
        refused("--run_dir=$NO_SUCH_VARIABLE/x", "--run_dir", "NO_SUCH_VARIABLE")
        refused("--data.train=[$NO_SUCH_VARIABLE]", "--data.train", "NO_SUCH_VARIABLE")
        refused("--train.init_from=~ada", "--train.init_from", "~ada")
        self.write("broken.yaml", config.replace("run_dir: ~/a", "run_dir: ${NO_SUCH_VARIABLE}/a"))
        self.refused("train", "broken.yaml", says=["broken.yaml:1: run_dir", "NO_SUCH_VARIABLE"], env=environment)
        self.assertEqual([path.name for path in self.directory.iterdir() if path.name[0] in "~$"], [])

    def test_a_tilde_of_an_option_is_the_home_directory(self):
        home = self.directory / "home"
        home.mkdir()
        environment = {**os.environ, "HOME": str(home)}
        (home / "text.txt").write_text("line one")
        self.succeeds("tokenize", "--input=~/text.txt", "--out=~/shards", env=environment)
        self.succeeds("tokenize", "--input", "~/text.txt", "--out", "./~", env=environment)
        self.assertTrue((home / "shards" / "dataset.json").exists())
        self.assertTrue((self.directory / "~" / "dataset.json").exists())  # named on purpose
        self.refused("tokenize", "--input=~/text.txt", "--out=~ada/x", says=["--out", "~ada/x"], env=environment)
        self.write("$x~y.txt", "line one")
        self.succeeds("tokenize", "--input", "$x~y.txt", "--out", "$HOME", env=environment)
        self.assertTrue((self.directory / "$HOME" / "dataset.json").exists())


if __name__ == "__main__":
    main()
