#!/usr/bin/env python3
"""Tests the choice of a routing policy: recommend, curve, budget, eval of several texts, check, and what a terminal shows.

Usage: policies_test.py PATH/TO/dsmoe
"""

import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import tempfile

from support import DSMOE, TEXT, HabitsTest, main

JSON_OBJECT = re.compile(r'\{"')
OTHER = "".join(f"{i} QUITE ANOTHER TEXT, {i * i} IN CAPITALS\n" for i in range(60))


class PoliciesTest(HabitsTest):
    @classmethod
    def setUpClass(cls):
        """One run and two texts for all tests; no test changes them."""
        maker = cls()
        maker.directory = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-habits-policies-"))
        cls.addClassCleanup(shutil.rmtree, maker.directory, ignore_errors=True)
        cls.model = maker.tiny_run("run", "--train.steps=40")
        cls.text = maker.write("a.txt", TEXT[:6000])
        cls.other = maker.write("b.txt", OTHER)

    def on_terminal(self, *arguments):
        """Runs the command with standard error on a terminal; returns what that shows, and standard output."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen([DSMOE, *map(str, arguments)], cwd=self.directory, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the terminal's end, once the program has left it
                break
            if not part:
                break
            shown += part
        os.close(ours)
        output = process.stdout.read()
        process.stdout.close()
        self.assertEqual(process.wait(timeout=120), 0, shown)
        return shown.decode(), output.decode()

    def test_recommend_names_a_policy_within_the_rise_and_the_command_runs(self):
        found = self.prints_json("recommend", self.model, "--data", self.text, "--rise", "1%")
        self.assertLessEqual(found["rise"], 0.01)
        for one in found["measured"]:
            self.assertTrue(one["rise"] > 0.01 or one["active_parameters"] >= found["active_parameters"], one)
        whole = self.prints_json("eval", self.model, "--data", self.text, "--policy", "all")
        quality = self.prints_json("eval", self.model, "--data", self.text, "--policy", found["policy"])
        # The text is shorter than the bound of tokens: recommend has measured all of it.
        self.assertEqual(quality["perplexity"], found["perplexity"])
        self.assertAlmostEqual(found["rise"], quality["perplexity"] / whole["perplexity"] - 1, places=9)
        self.assertAlmostEqual(found["share"], quality["active_parameters"] / quality["non_embedding_parameters"])
        self.assertEqual(found, self.prints_json("recommend", self.model, "--data", self.text, "--rise", "0.01"))

        lines = self.succeeds("recommend", self.model, "--data", self.text, "--rise", "1%").stdout.splitlines()
        sentence = f"{found['policy']}: {100 * found['share']:.1f} % of the parameters, {100 * found['rise']:+.1f} % perplexity"
        self.assertEqual(lines[-2], sentence)
        self.assertEqual(lines[-1], found["command"])
        self.assertTrue(lines[-1].startswith("dsmoe generate "))
        command = lines[-1].replace("dsmoe", f"'{DSMOE}'", 1) + " --max-tokens 3"
        done = subprocess.run(command, shell=True, cwd=self.directory, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_rise_is_a_share_or_a_percentage(self):
        for text in ("x", "-1%", ""):
            self.refused("recommend", self.model, "--data", self.text, "--rise", text, says=["--rise", "1%"])
        budget = ("budget", self.model, "--data", self.text, "--candidates", "top_k=1", "--perplexity-rise")
        self.refused(*budget, "1 percent", says=["--perplexity-rise", "1%"])
        both = [self.prints_json(*budget, rise) for rise in ("5%", "0.05")]
        self.assertEqual(both[0]["routing"], both[1]["routing"])
        self.assertEqual(both[0]["perplexity"], both[1]["perplexity"])

    def test_curve_prints_share_and_rise_over_all(self):
        arguments = ("curve", self.model, "--data", self.text, "--policies", "top_k=1", "all", "threshold=0.6")
        points = self.prints_json(*arguments)["points"]
        whole = points[1]
        self.assertEqual((whole["rise"], whole["share"]), (0, 1))
        for point in points:
            self.assertEqual(point["rise"], point["perplexity"] / whole["perplexity"] - 1)
            self.assertEqual(point["share"], point["active_parameters"] / point["non_embedding_parameters"])
        rows = [line.split() for line in self.succeeds(*arguments).stdout.splitlines() if line.startswith(("all", "threshold"))]
        self.assertIn("+0.00%", rows[0])
        self.assertIn(f"{100 * points[2]['rise']:+.2f}%", rows[1])
        self.assertIsNone(self.prints_json(*arguments[:5], "top_k=1")["points"][0]["rise"])

    def test_budget_writes_nothing_but_its_result_into_a_pipe_and_one_line_on_a_terminal(self):
        budget = ("budget", self.model, "--data", self.text, "--active-parameters", 50000, "--candidates", "top_k=1")
        self.assertEqual(self.succeeds(*budget).stderr, "")
        shown, output = self.on_terminal(*budget)
        self.assertIn("layers:", output)
        self.assertIn("budget [", shown)
        self.assertIn("eta", shown)
        self.assertNotIn("\n", shown)
        self.assertTrue(shown.endswith("\r\x1b[K"), shown[-200:])

    def test_eval_of_several_texts_has_a_row_for_each_and_a_total(self):
        both = ("eval", self.model, "--data", self.text, "--data", self.other, "--policy", "top_k=2")
        result = self.prints_json(*both)
        alone = [self.prints_json("eval", self.model, "--data", path, "--policy", "top_k=2") for path in (self.text, self.other)]
        self.assertEqual([text["data"] for text in result["texts"]], [str(self.text), str(self.other)])
        for text, one in zip(result["texts"], alone, strict=True):
            self.assertEqual(text["tokens_scored"], one["tokens_scored"])
            self.assertEqual(text["bytes"], one["bytes"])
            self.assertAlmostEqual(text["perplexity"], one["perplexity"], places=4)
            self.assertAlmostEqual(text["bits_per_byte"], one["bits_per_byte"], places=5)
            self.assertEqual(text["active_parameters"], one["active_parameters"])
        self.assertEqual(sum(text["tokens_scored"] for text in result["texts"]), result["tokens_scored"])
        self.assertAlmostEqual(sum(text["nats_total"] for text in result["texts"]), result["nats_total"], places=6)
        self.assertEqual(len(alone[0]["texts"]), 1)
        self.assertEqual(alone[0]["texts"][0]["perplexity"], alone[0]["perplexity"])

        lines = self.succeeds(*both).stdout.splitlines()
        rows = {line.split()[0]: line.split() for line in lines if line.strip()}
        for name, one in ((str(self.text), result["texts"][0]), (str(self.other), result["texts"][1]), ("total", result)):
            self.assertEqual(rows[name][1:3], [str(one["tokens_scored"]), f"{one['perplexity']:.4f}"])

    def test_no_text_output_has_json(self):
        commands = (("eval", self.model, "--data", self.text), ("curve", self.model, "--data", self.text, "--policies", "all"),
                    ("recommend", self.model, "--data", self.text), ("check", self.model), ("inspect", self.model, "--tensors"),
                    ("budget", self.model, "--data", self.text, "--active-parameters", 1e6, "--candidates", "top_k=1"),
                    ("eval", self.model, "--data", self.text, "--experts"), ("eval", self.model, "--data", self.text, "--against-policy", "top_k=1"))
        for command in commands:
            with self.subTest(command=command[0]):
                done = self.succeeds(*command)
                self.assertNotRegex(done.stdout + done.stderr, JSON_OBJECT)

    def test_progress_is_for_terminals(self):
        for command in (("eval", self.model, "--data", self.text), ("recommend", self.model, "--data", self.text),
                        ("eval", self.model, "--choices", self.write("c.jsonl", '{"good": "a king", "bad": "no one"}\n'))):
            with self.subTest(command=command[0]):
                self.assertEqual(self.succeeds(*command).stderr, "")
                shown, output = self.on_terminal(*command)
                self.assertIn(f"{command[0]} [", shown)
                self.assertTrue(shown.endswith("\r\x1b[K"), shown[-200:])
                self.assertNotIn("[#", output)
        shown, output = self.on_terminal("curve", self.model, "--data", self.text, "--policies", "all", "top_k=1")
        self.assertIn("curve [", shown)
        self.assertNotIn("of 2 policies", shown)

    def test_check_on_random_tokens_judges_no_expert_dead(self):
        random, text = (self.prints_json("check", self.model, *data) for data in ((), ("--data", self.text)))
        self.assertEqual((random["tokens"], text["tokens"]), ("random", "text"))
        for layer, same in zip(random["layers"], text["layers"], strict=True):
            for kind in ("moe", "moa"):
                self.assertIsNone(layer[kind]["dead"])
                self.assertIsInstance(same[kind]["dead"], list)
        self.assertIn("random tokens", self.succeeds("check", self.model).stdout)
        self.assertNotIn("random tokens", self.succeeds("check", self.model, "--data", self.text).stdout)

    def test_the_number_type_of_the_weights_is_said_and_that_of_training_where_the_cpu_is_fast_at_it(self):
        self.assertEqual(self.prints_json("eval", self.model, "--data", self.text)["dtype"], "float32")
        self.assertIn("float32: as in training", self.succeeds("eval", self.model, "--data", self.text).stdout)
        asked = self.succeeds("eval", self.model, "--data", self.text, "--dtype", "bfloat16")
        self.assertIn(", bfloat16)", asked.stdout)
        self.tiny_run("bfloat16", "--train.steps=4", "--train.schedule.warmup_steps=1", "--train.compute_dtype=bfloat16")
        trained = self.directory / "bfloat16"
        fast = "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text()
        self.assertEqual(self.prints_json("eval", trained, "--data", self.text)["dtype"], "bfloat16" if fast else "float32")
        # A comparison takes one type for both checkpoints; nothing is known of the training of a converted one.
        self.succeeds("convert", trained, "copy")
        against = self.prints_json("eval", trained, "--data", self.text, "--policy", "all", "--against", "copy", "--against-policy", "all")
        self.assertEqual(against["against"]["kl_divergence"], 0)


if __name__ == "__main__":
    main()
