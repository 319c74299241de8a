#!/usr/bin/env python3
"""Tests the command line: results, exit codes, one line for bad input, no half-written files.

Usage: cli_test.py PATH/TO/dsmoe
"""

import gzip
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from watched import Watched

DSMOE = os.path.abspath(sys.argv.pop(1))
A_STEP = r" \d+/100000 "  # in the log of a run of 100,000 steps

CONFIG = """\
run_dir: {run}
seed: 3
threads: 1
model:
  d_model: 12
  n_layers: 2
  max_seq_len: 16
  attention: {{kind: moa, head_dim: 4}}
  moa:
    n_experts: 3
    heads_per_expert: 2
    router: {{kind: linear}}
  ffn: {{kind: moe}}
  moe:
    n_experts: 4
    d_expert: 5
    router: {{kind: linear}}
data:
  train: {train}
  validation: {valid}
train:
  steps: 6
  batch_size: 2
  compute_dtype: float32
  log_every: 2
  validate_every: 3
  save_every: 3
  schedule: {{peak: 1.0e-2, warmup_steps: 2}}
"""


def run(*arguments, stdin=None, timeout=120):
    return subprocess.run([DSMOE, *map(str, arguments)], capture_output=True, text=True, input=stdin, timeout=timeout)


def newest_checkpoint(run_directory):
    return sorted((run_directory / "checkpoints").glob("step-*"))[-1]


def flip_byte(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-cli-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.text = cls.directory / "text.txt"
        cls.text.write_text("".join(f"line {i * i % 97} of a small text\n" for i in range(100)))
        cls.train = cls.shards("bytes")
        cls.config = cls.write_config("config.yaml", cls.directory / "run")
        cls.run_directory = cls.directory / "run"
        done = run("train", cls.config, "--json")
        assert done.returncode == 0, done.stderr
        cls.trained = json.loads(done.stdout)

    @classmethod
    def shards(cls, tokenizer):
        out = cls.directory / ("shards-" + tokenizer.replace(":", "-"))
        done = run("tokenize", "--input", cls.text, "--tokenizer", tokenizer, "--out", out)
        assert done.returncode == 0, done.stderr
        return out

    @classmethod
    def write_config(cls, name, run_directory, edit=lambda text: text):
        path = cls.directory / name
        path.write_text(edit(CONFIG.format(run=run_directory, train=cls.train, valid=cls.train)))
        return path

    def refused(self, *arguments, says=()):
        """The command exits with 2 and one line with every text of `says`, and prints no result."""
        done = run(*arguments)
        complaints = [line for line in done.stderr.splitlines() if line.startswith("dsmoe: ")]
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(complaints), 1, done.stderr)
        self.assertEqual(done.stderr.splitlines()[-1], complaints[0])
        for text in says:
            self.assertIn(str(text), complaints[0])

    def copy_of_run(self):
        copy = pathlib.Path(tempfile.mkdtemp(dir=self.directory)) / "run"
        shutil.copytree(self.run_directory, copy)
        return copy

    # Results.

    def test_every_command_has_help_with_an_example(self):
        for command in ["tokenize", "train", "eval", "curve", "recommend", "budget", "check", "report", "generate", "inspect", "bench"]:
            done = run(command, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertRegex(done.stdout, rf"\nExamples?:\s+dsmoe {command} ")

    def test_json_has_the_documented_keys(self):
        self.assertLessEqual(
            {"step", "tokens", "loss", "lm_loss", "moe_mi", "moa_mi", "sparsity", "balance", "z", "loss_weights",
             "validation_loss", "tokens_per_second", "mfu", "peak_memory_bytes"}, self.trained.keys())
        weighted = sum(weight * self.trained[key] for key, weight in self.trained["loss_weights"].items())
        self.assertAlmostEqual(weighted, self.trained["loss"], delta=1e-5)
        self.assertEqual(self.trained["step"], 6)
        self.assertEqual(self.trained["tokens"], 6 * 2 * 16)

        out = self.directory / "shards-json"
        tokens = json.loads(run("tokenize", "--input", self.text, "--out", out, "--json").stdout)
        self.assertEqual(tokens["tokens"], self.text.stat().st_size + 1)
        self.assertLessEqual({"documents", "bytes", "tokenizer", "vocab_size", "shards"}, tokens.keys())

        result = json.loads(run("eval", self.run_directory, "--data", self.text, "--policy", "top_k=2", "--words",
                                "auto", "--json").stdout)
        self.assertLessEqual(
            {"perplexity", "nats_per_token", "bits_per_byte", "word_perplexity", "nats_total", "tokens_scored",
             "window", "stride", "bos", "policy", "execution", "active_experts", "active_parameters",
             "total_parameters", "seconds", "tokens_per_second"}, result.keys())
        self.assertEqual(result["tokens_scored"], self.text.stat().st_size)
        self.assertEqual(result["active_experts"], {"moe": 2.0, "moa": 3.0})
        self.assertAlmostEqual(result["perplexity"], math.exp(result["nats_total"] / result["tokens_scored"]))
        words = len(self.text.read_text().split()) + self.text.read_text().count("\n")
        self.assertAlmostEqual(result["word_perplexity"], math.exp(result["nats_total"] / words), delta=1e-6 *
                               result["word_perplexity"])

        made = json.loads(run("generate", self.run_directory, "--prompt", "line", "--max-tokens", 5, "--n", 2,
                              "--temperature", 1, "--json").stdout)
        self.assertEqual(len(made["completions"]), 2)
        self.assertLessEqual({"text", "ids", "finish_reason"}, made["completions"][0].keys())
        self.assertLessEqual({"prompt_tokens", "generated_tokens", "prefill_tokens_per_second",
                              "decode_tokens_per_second", "active_experts", "seconds_to_first_token",
                              "load_seconds", "weight_bytes", "peak_memory_bytes"}, made.keys())

        plain = ["generate", self.run_directory, "--prompt", "line", "--max-tokens", 8, "--policy", "all", "--json"]
        whole = json.loads(run(*plain).stdout)
        drafted = json.loads(run(*plain, "--draft", "top_k=1", "--draft-tokens", 2).stdout)
        self.assertEqual(drafted["completions"], whole["completions"])
        self.assertGreater(drafted["drafted_tokens"], 0)
        self.assertLessEqual(drafted["accepted_tokens"], drafted["drafted_tokens"])

        inspected = json.loads(run("inspect", self.run_directory, "--json").stdout)
        self.assertEqual(inspected["step"], 6)
        self.assertTrue(inspected["valid"])
        self.assertEqual(inspected["parameters"], sum(inspected["parameters_by_group"].values()))
        self.assertLessEqual({"parameters", "tensors"}, inspected.keys())

    def test_bench_measures_prompts_and_decoding_of_configs_and_checkpoints(self):
        sizes = ["--prompt", 6, "--generate", 4, "--batch", 2, "--repetitions", 2, "--threads", 1]
        for model in ([self.config, "--model.vocab_size=257"], [self.run_directory]):
            for dtype in ("float32", "bfloat16", "int8"):
                result = json.loads(run("bench", "--config", *model, "--policy", "moe:top_k=2;moa:all", "--dtype",
                                        dtype, *sizes, "--json").stdout)
                for speed in ("prefill_tokens_per_second", "decode_tokens_per_second", "bandwidth_share"):
                    self.assertLess(0, result[speed]["min"])
                    self.assertLessEqual(result[speed]["min"], result[speed]["median"])
                    self.assertLessEqual(result[speed]["median"], result[speed]["max"])
                self.assertEqual(result["active_experts"]["moe"], 2)
                self.assertLessEqual({"bytes_per_token", "bandwidth_bytes_per_second", "build"}, result.keys())
        self.assertIn("decode, tokens/s", run("bench", "--config", self.run_directory, *sizes).stdout)

    def test_narrow_weights_score_nearly_as_float32(self):
        perplexity = {}
        for dtype in ("float32", "bfloat16", "int8"):
            result = run("eval", self.run_directory, "--data", self.text, "--dtype", dtype, "--json").stdout
            perplexity[dtype] = json.loads(result)["perplexity"]
        self.assertAlmostEqual(perplexity["bfloat16"] / perplexity["float32"], 1, delta=0.005)
        self.assertAlmostEqual(perplexity["int8"] / perplexity["float32"], 1, delta=0.01)
        self.assertNotEqual(perplexity["int8"], perplexity["float32"])

    def test_bench_measures_steps_and_memory_of_several_configs(self):
        larger = self.write_config("larger.yaml", self.directory / "never",
                                   lambda text: text.replace("d_model: 12", "d_model: 192").replace(
                                       "d_expert: 5", "d_expert: 500").replace("batch_size: 2", "batch_size: 16"))
        vocabulary = "--model.vocab_size=257"
        measure = ["bench", "--train", "--config", self.config, larger, vocabulary, "--threads", 1, "--warmup", 1,
                   "--repetitions", 1]
        result = json.loads(run(*measure, "--json").stdout)
        self.assertLessEqual({"tokens_per_second", "step_seconds", "mfu", "peak_memory_bytes"}, result.keys())
        small, large = result["configs"]
        self.assertEqual(small["tokens_per_step"], 2 * 16)
        self.assertEqual(large["tokens_per_step"], 16 * 16)
        self.assertAlmostEqual(small["tokens_per_second"], 32 / small["step_seconds"], delta=1e-6 *
                               small["tokens_per_second"])
        for value in ("step_seconds", "cpu_seconds"):
            self.assertEqual(small[f"{value}_over_first"], 1)
            self.assertAlmostEqual(large[f"{value}_over_first"] * small[value] / large[value], 1)
        self.assertAlmostEqual(large["flops_over_first"] * small["flops_per_token"] / large["flops_per_token"], 1)
        # At least weights, gradients and two moments, above the memory of a process with any model.
        self.assertGreater(large["peak_tensor_bytes"] - small["peak_tensor_bytes"],
                           16 * (large["parameters"] - small["parameters"]))
        for each in (small, large):
            self.assertLessEqual(each["peak_tensor_bytes"], each["peak_held_bytes"])
            self.assertLess(0, each["peak_memory_bytes"])
            step_flops = each["flops_per_token"] * each["tokens_per_step"]
            self.assertAlmostEqual(each["mfu"] * each["step_seconds"] * each["matrix_flops_per_second"] / step_flops, 1)
            self.assertEqual(len(each["losses"]), 2)
        self.assertIn("larger", run(*measure).stdout)
        self.assertNotIn("peak_memory_bytes", json.loads(run(*measure, "--no-memory", "--json").stdout))
        again = json.loads(run(*measure, "--memory-only", "--json").stdout)
        self.assertNotIn("mfu", again)
        # Counted, not sampled: the same in every run.
        for kind in ("peak_tensor_bytes", "peak_held_bytes"):
            self.assertEqual([each[kind] for each in again["configs"]], [small[kind], large[kind]])
        printed = run("bench", "--train", "--config", self.config, vocabulary, "--print-config").stdout
        self.assertIn("vocab_size: 257", printed)
        self.assertFalse((self.directory / "never").exists())

    def test_the_run_directory_holds_the_documented_files(self):
        lines = [json.loads(line) for line in (self.run_directory / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual([line["step"] for line in lines if "lm_loss" in line], [2, 4, 6])
        self.assertTrue(any("validation_loss" in line for line in lines))
        self.assertTrue((self.run_directory / "config.yaml").exists())
        self.assertTrue(list(self.run_directory.glob("tensorboard/train/*tfevents*")))
        again = run("train", self.run_directory / "config.yaml", "--print-config")
        self.assertEqual(again.stdout, (self.run_directory / "config.yaml").read_text())

    def test_metrics_contain_the_routing_of_each_layer(self):
        lines = [json.loads(line) for line in (self.run_directory / "metrics.jsonl").read_text().splitlines()]
        routing = [line["moe_routing"] for line in lines if "moe_routing" in line][-1]
        self.assertEqual(len(routing["load"]), 2)  # layers
        self.assertEqual([len(load) for load in routing["load"]], [4, 4])  # experts
        for layer in range(2):
            self.assertAlmostEqual(routing["mutual_information"][layer],
                                   routing["mean_entropy"][layer] - routing["token_entropy"][layer], delta=2e-6)
            self.assertLessEqual(routing["mean_entropy"][layer], math.log(4) + 1e-6)
            self.assertEqual(routing["active_experts"][layer], 4)
            self.assertEqual(routing["max_load"][layer], max(routing["load"][layer]))

    def test_traces_are_written_on_request(self):
        directory = self.directory / "traced"
        config = self.write_config("traced.yaml", directory)
        self.assertEqual(run("train", config, "--train.trace_steps=2").returncode, 0)
        trace = json.loads((directory / "trace-step-00000004.json").read_text())
        names = {event.get("name", "") for event in trace["traceEvents"]}
        self.assertTrue(any(name.startswith("aten::") for name in names), sorted(names)[:20])
        self.assertEqual(len(list(directory.glob("trace-*.json"))), 1)
        with Watched([DSMOE, "train", config, "--train.steps=100000", "--train.log_every=1"]) as process:
            process.wait_for_line(A_STEP)
            process.send_signal(signal.SIGUSR1)
            process.wait_for_line("trace in")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75)

    def test_a_second_signal_leaves_at_once(self):
        directory = self.directory / "hurry"
        config = self.write_config("hurry.yaml", directory)
        with Watched([DSMOE, "train", config, "--train.steps=100000", "--train.log_every=1", "--train.save_every=100000"]) as process:
            process.wait_for_line(A_STEP)
            # Both signals are pending before the process continues, so that it cannot save and exit after the first.
            for each in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
                process.send_signal(each)
            process.communicate(timeout=60)
        self.assertIn(process.returncode, (128 + signal.SIGINT, 128 + signal.SIGTERM))
        self.assertEqual(list((directory / "checkpoints").glob("step-*")), [])

    def test_choices_are_counted_by_group_and_each_item_is_written(self):
        items = self.directory / "items.jsonl"
        items.write_text('{"context": "line 1 of a", "choices": [" small", " xqzkj"], "answer": 0, "group": "words"}\n'
                         '{"good": "of a small text", "bad": "fo a msall xtet"}\n')
        out = self.directory / "scores.jsonl"
        result = json.loads(run("eval", self.run_directory, "--choices", items, "--out", out, "--json").stdout)
        self.assertEqual(result["items"], 2)
        self.assertTrue(result["complete"])
        self.assertEqual(result["per_group"]["words"]["items"], 1)
        scores = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual([len(score["log_likelihoods"]) for score in scores], [2, 2])
        self.assertEqual([[type(is_greedy) for is_greedy in score["greedy"]] for score in scores], [[bool, bool]] * 2)
        self.assertEqual(result["accuracy"], sum(score["right"] for score in scores) / 2)
        for score in scores:
            self.assertEqual(score["right"], score["log_likelihoods"][0] > score["log_likelihoods"][1])
        self.refused("eval", self.run_directory, "--choices", items, "--data", self.text, says=["--data", "--choices"])

    def test_a_curve_is_an_eval_for_each_policy(self):
        plot = self.directory / "curve.svg"
        policies = ["all", "top_k=1", "threshold=0.6"]
        curve = json.loads(run("curve", self.run_directory, "--data", self.text, "--policies", *policies, "--plot", plot,
                               "--json").stdout)
        self.assertTrue(curve["complete"])
        for policy, point in zip(policies, curve["points"], strict=True):
            alone = json.loads(run("eval", self.run_directory, "--data", self.text, "--policy", policy, "--json").stdout)
            for key in ("perplexity", "nats_total", "active_parameters", "policy"):
                self.assertEqual(point[key], alone[key], (policy, key))
        self.assertLess(curve["points"][1]["flops_per_token"], curve["points"][0]["flops_per_token"])
        self.assertEqual(plot.read_text().count("<circle"), 2)  # `all` is a line
        self.refused("curve", self.run_directory, "--data", self.text, "--policies", "all", "top_k=99", says=["99"])

    def test_a_stopped_curve_keeps_the_points_that_are_finished(self):
        text = self.directory / "long.txt"
        text.write_text(self.text.read_text() * 30)
        policies = ["all", "top_k=1", "threshold=0.6"] * 100
        alone = json.loads(run("eval", self.run_directory, "--data", text, "--policy", "all", "--json").stdout)
        with Watched([DSMOE, "curve", self.run_directory, "--data", text, "--json", "--policies", *policies],
                     stdout=subprocess.PIPE) as process:
            process.wait_for_line("curve: 2 of 300")
            process.send_signal(signal.SIGTERM)
            curve = json.loads(process.communicate(timeout=60)[0])
        self.assertEqual(process.returncode, 75)
        self.assertFalse(curve["complete"])
        self.assertLess(1, len(curve["points"]))
        self.assertLess(len(curve["points"]), 300)
        self.assertEqual(curve["points"][0]["nats_total"], alone["nats_total"])

    def test_two_policies_or_checkpoints_are_compared_token_by_token(self):
        compare = ["eval", self.run_directory, "--data", self.text, "--policy", "top_k=1"]
        alone = json.loads(run(*compare, "--json").stdout)
        policies = json.loads(run(*compare, "--against-policy", "all", "--json").stdout)
        self.assertEqual(policies["perplexity"], alone["perplexity"])
        self.assertNotIn("against", alone)
        self.assertGreater(policies["against"]["kl_divergence"], 0)
        self.assertGreater(policies["against"]["kl_divergence_max"], policies["against"]["kl_divergence"])
        checkpoints = sorted((self.run_directory / "checkpoints").glob("step-*"))
        other = json.loads(run(*compare, "--against", checkpoints[0], "--against-policy", "top_k=1", "--json").stdout)
        self.assertEqual(other["against"]["checkpoint"], str(checkpoints[0]))
        self.assertNotEqual(other["against"]["perplexity"], alone["perplexity"])
        itself = json.loads(run(*compare, "--against", self.run_directory, "--against-policy", "top_k=1", "--json").stdout)
        self.assertEqual((itself["against"]["kl_divergence"], itself["against"]["top1_agreement"]), (0, 1))
        self.assertIn("KL divergence", run(*compare, "--against-policy", "all").stdout)
        self.refused("eval", self.run_directory, "--choices", self.text, "--against-policy", "all", says=["--data"])

    def test_expert_statistics_of_texts_agree_with_their_use(self):
        other = self.directory / "other.txt"
        other.write_text("QUITE ANOTHER KIND OF TEXT, IN CAPITALS\n" * 40)
        evaluate = ["eval", self.run_directory, "--data", self.text, "--data", other, "--policy", "top_k=2", "--experts"]
        result = json.loads(run(*evaluate, "--json").stdout)
        experts = result["experts"]
        sizes = [path.stat().st_size for path in (self.text, other)]
        self.assertEqual([group["data"] for group in experts["groups"]], [str(self.text), str(other)])
        self.assertEqual([group["tokens"] for group in experts["groups"]], sizes)
        self.assertEqual(result["bytes"], sum(sizes))
        alone = [json.loads(run("eval", self.run_directory, "--data", path, "--policy", "top_k=2", "--json").stdout)
                 for path in (self.text, other)]
        self.assertAlmostEqual(result["nats_total"], sum(one["nats_total"] for one in alone), delta=1e-3)
        for layer, used in zip(experts["moe"], result["expert_use"]["moe"]):
            self.assertEqual(len(layer["co_activation"]), 4)
            for expert, n_tokens in zip(layer["experts"], used["tokens_per_expert"]):
                self.assertAlmostEqual(expert["share"], n_tokens / sum(sizes))
        for i, layer in enumerate(experts["moe"]):
            loads = [one["expert_use"]["moe"][i]["tokens_per_expert"] for one in alone]
            whole = [sum(pair) / (2 * sum(sizes)) for pair in zip(*loads)]
            for kl, load in zip(layer["group_kl"], loads):
                shares = [n / sum(load) for n in load]
                self.assertAlmostEqual(kl, sum(p * math.log(p / q) for p, q in zip(shares, whole) if p), places=9)
        everything = json.loads(run(*evaluate[:4], "--policy", "all", "--experts", "--json").stdout)["experts"]
        self.assertEqual(everything["moa"][0]["co_activation"], [[1.0] * 3] * 3)
        self.assertNotIn("group_kl", everything["moe"][0])
        text = run(*evaluate).stdout
        self.assertIn("together, against chance", text)
        self.assertIn("mutual information", text)
        self.refused(*evaluate, "--against-policy", "all", says=["--experts"])

    def test_a_budget_writes_a_routing_within_the_budget(self):
        routing = self.directory / "routing.yaml"
        whole = json.loads(run("eval", self.run_directory, "--data", self.text, "--policy", "all", "--json").stdout)
        target = 0.8 * whole["active_parameters"]
        result = json.loads(run("budget", self.run_directory, "--data", self.text, "--active-parameters", target, "--out",
                                routing, "--json").stdout)
        self.assertLessEqual(result["predicted_active_parameters"], target)
        self.assertLess(abs(result["active_parameters"] / result["predicted_active_parameters"] - 1), 0.1)
        self.assertEqual(routing.read_text(), result["routing"])
        self.assertLessEqual({"perplexity", "uniform_perplexity", "uniform_threshold_perplexity"}, result.keys())
        again = json.loads(run("eval", self.run_directory, "--data", self.text, "--policy", f"routing={routing}",
                               "--json").stdout)
        self.assertLess(abs(again["active_parameters"] / result["active_parameters"] - 1), 0.1)
        timed = json.loads(run("budget", self.run_directory, "--data", self.text, "--ms-per-token", "1000", "--json").stdout)
        for made in (result, timed):
            self.assertGreater(made["ms_per_token"], 0)
            self.assertAlmostEqual(made["ms_per_token_error"], made["predicted_ms_per_token"] / made["ms_per_token"] - 1)
        self.refused("budget", self.run_directory, "--data", self.text, says=["--active-parameters", "--ms-per-token"])
        self.refused("budget", self.run_directory, "--data", self.text, "--active-parameters", "1", says=["at least"])

    def test_a_report_is_one_page(self):
        page = self.directory / "report.html"
        result = json.loads(run("report", self.run_directory, "--out", page, "--json").stdout)
        self.assertEqual(result, {"path": str(page)})
        html = page.read_text()
        self.assertIn("Language-model loss", html)
        self.assertIn("Load of attention experts, layer 1", html)
        self.refused("report", self.directory, says=["metrics.jsonl"])

    def test_check_passes_a_trained_run(self):
        done = run("check", self.run_directory, "--data", self.text, "--json")
        self.assertEqual(done.returncode, 0)
        report = json.loads(done.stdout)
        self.assertTrue(report["pass"])
        self.assertEqual(report["policy"], "moe:top_k=1;moa:top_k=2")
        self.assertLess(report["max_abs_error"], 1e-4)
        self.assertEqual(len(report["layers"]), 2)

    def test_policies_agree_where_they_must(self):
        def perplexity(policy, execution="auto"):
            done = run("eval", self.run_directory, "--data", self.text, "--policy", policy, "--execution", execution,
                       "--json")
            return json.loads(done.stdout)["perplexity"]

        everything = perplexity("all")
        self.assertAlmostEqual(perplexity("top_k=4"), everything, delta=1e-5 * everything)
        self.assertAlmostEqual(perplexity("threshold=0"), everything, delta=1e-5 * everything)
        self.assertAlmostEqual(self.trained["validation_loss"], math.log(everything), delta=1e-5)
        for policy in ["top_k=1", "threshold=0.9", "threshold=0.9,max=1", "moe:top_k=2;moa:top_k=1"]:
            sparse = perplexity(policy, "sparse")
            self.assertAlmostEqual(perplexity(policy, "dense"), sparse, delta=1e-5 * sparse)

    def test_generation_streams_the_text_that_json_reports(self):
        arguments = ["generate", self.run_directory, "--prompt", "line", "--max-tokens", 8]
        text = json.loads(run(*arguments, "--json").stdout)["completions"][0]["text"]
        self.assertEqual(run(*arguments).stdout, "line" + text + "\n")

    def test_prompts_that_share_passes_give_the_same_texts_as_alone(self):
        lines = self.directory / "prompts.jsonl"
        requests = [{"prompt": "line"}, {"prompt": "", "max_tokens": 3}, {"prompt": "the", "seed": 5},
                    {"prompt": "a", "temperature": 0, "stop": ["zzz"]}]
        lines.write_text("".join(json.dumps(request) + "\n" for request in requests))
        common = ["generate", self.run_directory, "--max-tokens", 8, "--temperature", 0.9, "--dtype", "bfloat16"]
        done = json.loads(run(*common, "--prompts", lines, "--json").stdout)
        self.assertEqual(len(done["completions"]), 4)
        for request, completion in zip(requests, done["completions"]):
            own = [f"--{key.replace('_', '-')}={value}" for key, value in request.items() if key not in ("prompt", "stop")]
            alone = json.loads(run("generate", self.run_directory, "--prompt", request["prompt"], "--dtype", "bfloat16",
                                   *({"--max-tokens": "--max-tokens=8", "--temperature": "--temperature=0.9",
                                      **{option.split("=")[0]: option for option in own}}.values()),
                                   "--json").stdout)
            self.assertEqual(alone["completions"], [completion])
        self.assertLessEqual({"generated_tokens_per_second", "steps", "largest_batch", "kv_budget_bytes",
                              "peak_kv_bytes", "load_seconds", "seconds"}, done.keys())
        self.assertEqual(done["largest_batch"], 4)

        # In order of completion; two at once give the same texts.
        ended = [json.loads(line) for line in
                 run(*common, "--prompts", lines, "--json-lines", "--max-batch", 2).stdout.splitlines()]
        # Of the first two, the one that ends after fewer tokens.
        self.assertEqual(ended[0]["request"], min((0, 1), key=lambda i: len(done["completions"][i]["ids"])))
        self.assertEqual({line["request"]: line["ids"] for line in ended[:-1]},
                         {i: completion["ids"] for i, completion in enumerate(done["completions"])})
        self.assertEqual(ended[-1]["largest_batch"], 2)

        # Plain lines, in the order given.
        plain = self.directory / "prompts.txt"
        plain.write_text("line\nthe\n")
        shown = run("generate", self.run_directory, "--prompts", plain, "--max-tokens", 4, "--n", 2).stdout
        texts = [json.loads(run("generate", self.run_directory, "--prompt", prompt, "--max-tokens", 4, "--json")
                            .stdout)["completions"][0]["text"] for prompt in ("line", "the")]
        blocks = [f"--- {i + 1}\n{prompt}{texts[i // 2]}\n" for i, prompt in enumerate(["line", "line", "the", "the"])]
        self.assertEqual(shown, "".join(blocks))

    def test_prompt_files_that_do_not_fit_are_refused(self):
        def refused(text, says, *options, name="refused.jsonl"):
            path = self.directory / name
            path.write_text(text)
            self.refused("generate", self.run_directory, "--prompts", path, *options, says=says)

        refused('\n{"prompt": 3}\n', ["refused.jsonl:2", "'prompt'", "a text"])
        refused('{"prompt": "x", "beams": 3}\n', ["refused.jsonl:1", "'beams'"])
        refused('{"text": "x"}\n', ["refused.jsonl:1", "'prompt'"])
        refused('{"prompt": "x"', ["refused.jsonl:1"])
        refused('{"prompt": "x", "top_k": 1.5}', ["'top_k'", "whole number"])
        refused("", ["expected prompts"], name="refused.txt")
        refused("y" * 16 + "\n", ["refused.txt:1", "17 tokens", "16"], name="refused.txt")
        refused("x\n", ["--kv-budget"], "--kv-budget", "0", name="refused.txt")
        self.refused("generate", self.run_directory, "--prompt", "x", "--kv-budget", "1", says=["--prompts"])
        self.refused("generate", self.run_directory, "--prompts", self.directory / "none.txt", says=["none.txt"])

    def test_overrides_and_dry_run_and_printed_config(self):
        printed = run("train", self.config, "--train.steps=7", "--print-config").stdout
        self.assertIn("steps: 7", printed)
        self.assertIn("vocab_size: 257", printed)
        elsewhere = self.directory / "dry"
        done = run("train", self.config, f"--run_dir={elsewhere}", "--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("parameters", done.stdout)
        self.assertFalse(elsewhere.exists())

    def test_weights_of_another_run_start_a_run(self):
        config = self.write_config("init.yaml", self.directory / "init")
        done = run("train", config, f"--train.init_from={self.run_directory}", "--train.steps=1",
                   "--train.schedule.peak=0", "--train.schedule.warmup_steps=0", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertAlmostEqual(result["validation_loss"], self.trained["validation_loss"], delta=1e-6)

    # What a run prints.

    def test_a_run_introduces_itself_logs_terms_that_add_up_and_says_what_comes_next(self):
        directory = self.directory / "introduced"
        config = self.write_config("introduced.yaml", directory)
        cache = self.directory / "cache"
        arguments = [DSMOE, "train", str(config), "--train.log_every=1", "--train.steps=9",
                     "--train.validate_policies=[all, top_k=1]"]
        done = subprocess.run(arguments, capture_output=True, text=True, env=dict(os.environ, XDG_CACHE_HOME=str(cache)))
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        lines = done.stderr.splitlines()
        self.assertNotIn("\x1b", done.stderr)
        self.assertNotIn("d_model", done.stderr)  # the config is in the file alone
        header = done.stderr.split("\n\n")[0].splitlines()
        self.assertLessEqual(len(header), 12)
        n_parameters = json.loads(run("inspect", directory, "--json").stdout)["parameters"]
        for text in (f"run         {directory}, new", f"model       {n_parameters:,} parameters", "active, 100.0 %", "top_k=1",
                     f"data        {self.text.stat().st_size + 1:,} tokens of {self.train}, ", " epochs", f"validation  {self.train}",
                     "steps       9 of 32 tokens (1 x 2 sequences of 16), 288 tokens in all", "machine     ", "float32; 1 rank, 1 thread",
                     f"config      {directory}/config.yaml"):
            self.assertIn(text, "\n".join(header))
        rows = [line.split()[1:] for line in lines if re.search(r" \d/9 ", line)]
        self.assertEqual([row[0] for row in rows], [f"{step}/9" for step in range(1, 10)])
        for row in rows:  # step, lm, two terms with their shares, loss
            self.assertAlmostEqual(float(row[1]) + float(row[2]) + float(row[4]), float(row[6]), delta=0.0021)
            for share in (row[3], row[5]):
                self.assertTrue(0 <= int(share.rstrip("%")) <= 100, share)
        self.assertLessEqual(max(len(line) for line in lines if re.search(r" \d/9 ", line)), 100)
        footer = done.stderr.split("\n\n")[-1]
        last = json.loads(run("train", config, "--train.steps=9", "--json", "--train.validate_policies=[all, top_k=1]").stdout)
        for text in ("done        step 9 of 9, 288 tokens, ", f"training {last['loss']:.4f}",
                     f"validation loss {last['validations'][1]['loss']:.4f}", f"best        validation loss {last['best_loss']:.4f} at step ",
                     f"checkpoint  {directory}/checkpoints/step-00000009", f"eval {directory} --data {self.train} --policy top_k=1",
                     f"generate {directory} --prompt 'The' --policy top_k=1"):
            self.assertIn(text, footer)
        facts = json.loads((directory / "run.json").read_text())
        self.assertEqual((facts["parameters_total"], facts["threads"], facts["dtype"]), (n_parameters, 1, "float32"))

        # Started again: finished, with the same numbers. With more steps: resumed.
        again = run("train", config, "--train.steps=9", "--train.validate_policies=[all, top_k=1]")
        self.assertIn(f"run         {directory}, resumed at step 9 from {directory}/checkpoints/step-00000009", again.stderr)
        self.assertIn("the run is finished: it has 9 steps", again.stderr)
        self.assertEqual(again.stderr.split("\n\n")[-1], footer)

    def test_the_report_shows_the_policies_of_validations(self):
        directory = self.directory / "policies"
        config = self.write_config("policies.yaml", directory)
        done = run("train", config, "--train.validate_policies=[all, threshold=1.1]", "--json")
        validations = json.loads(done.stdout)["validations"]
        self.assertEqual([one["policy"] for one in validations], ["all", "threshold=1.1"])
        self.assertEqual(validations[0]["loss"], json.loads(done.stdout)["validation_loss"])
        scored = json.loads(run("eval", directory, "--data", self.train, "--policy", "threshold=1.1", "--json").stdout)
        self.assertAlmostEqual(validations[1]["loss"], scored["nats_per_token"], delta=1e-5)
        self.assertAlmostEqual(validations[1]["active_parameters"], scored["active_parameters"], delta=1e-3)
        self.assertAlmostEqual(validations[1]["bits_per_byte"], scored["bits_per_byte"], delta=1e-5)
        page = self.directory / "policies.html"
        self.assertEqual(run("report", directory, "--out", page).returncode, 0)
        self.assertIn(f"<td>threshold=1.1</td><td>{validations[1]['loss']:.4f}</td>", page.read_text())
        self.refused("train", config, "--train.validate_policies=[all, top-k=1]", says=["train.validate_policies", "top-k=1"])

    # Stops.

    def test_sigterm_saves_and_exits_75_and_the_same_command_resumes(self):
        directory = self.directory / "stopped"
        config = self.write_config("stopped.yaml", directory)
        arguments = [DSMOE, "train", str(config), "--train.steps=100000", "--train.log_every=1",
                     "--train.validate_every=0", "--train.save_every=0"]
        for number in [signal.SIGTERM, signal.SIGINT]:
            with Watched(arguments) as process:
                for _ in range(3):
                    process.wait_for_line(A_STEP)
                process.send_signal(number)
                process.communicate(timeout=60)
            self.assertEqual(process.returncode, 75)
            inspected = json.loads(run("inspect", directory, "--json").stdout)
            self.assertGreaterEqual(inspected["step"], 3)
        first = sorted((directory / "checkpoints").glob("step-*"))
        self.assertEqual(len(first), 2)  # the second run went on from the first one's state

    def test_nan_stops_the_run_before_the_weights_change(self):
        directory = self.directory / "nan"
        config = self.write_config("nan.yaml", directory)
        done = run("train", config, "--train.steps=200", "--train.save_every=1", "--train.validate_every=0",
                   "--train.schedule.peak=10", "--train.schedule.warmup_steps=0",
                   "--train.optimizer.weight_decay=10")
        self.assertEqual(done.returncode, 1, done.stderr)
        complaint = done.stderr.splitlines()[-1]
        self.assertRegex(complaint, r"^dsmoe: step \d+: .*(nan|inf|finite)")
        inspected = json.loads(run("inspect", directory, "--json").stdout)
        step = int(complaint.split("step ")[1].split(":")[0])
        self.assertEqual(inspected["step"], step - 1)
        # The state before the failing step is intact: the same step fails in the same way again.
        again = run("train", config, "--train.steps=200", "--train.save_every=1", "--train.validate_every=0",
                    "--train.schedule.peak=10", "--train.schedule.warmup_steps=0",
                    "--train.optimizer.weight_decay=10")
        self.assertEqual(again.returncode, 1)
        self.assertEqual(again.stderr.splitlines()[-1], complaint)

    def test_a_second_process_in_the_run_directory_is_refused(self):
        directory = self.directory / "locked"
        config = self.write_config("locked.yaml", directory)
        with Watched([DSMOE, "train", config, "--train.steps=100000", "--train.log_every=1"]) as process:
            try:
                process.wait_for_line(A_STEP)
                self.refused("train", config, says=[directory, f"process {process.pid}"])
            finally:
                process.kill()

    # Bad input.

    def test_invalid_command_lines_are_refused_with_the_reason(self):
        self.assertRegex(run("--version").stdout, r"^\d+\.\d+\.\d+\n$")
        for line, says in [
            ("retrain", "expected a command, got 'retrain'; did you mean 'train'? see 'dsmoe --help'"),
            ("evaluate", "did you mean 'eval'?"),
            ("eval", "eval: expected CHECKPOINT, got none; see 'dsmoe eval --help'"),
            ("convert", "expected SOURCE and OUT, got neither"),
            ("inspect x --tensor", "inspect: expected an option, got '--tensor'; did you mean '--tensors'? see"),
            ("inspect x y", "expected no further argument, got 'y'"),
            ("inspect x --tensors=odd", "expected --tensors without a value, got '--tensors=odd'"),
            ("eval x --data", "expected a value after --data, got none"),
            ("eval x --data a b", "expected no further argument, got 'b'"),
            ("eval x --window wide", "expected a whole number for --window, got 'wide'"),
            ("eval x --batch 1 --batch 2", "expected --batch once, got it 2 times"),
            ("eval x --dtype int7", "expected auto, float32, bfloat16 or int8 for --dtype, got 'int7'"),
            ("generate x --temperature hot", "expected a number for --temperature, got 'hot'"),
            ("generate x --stop a b --n 70000", "expected 1 to 65536 for --n, got '70000'"),
            ("generate x --top_kk 3", "did you mean '--top-k'?"),
            ("plan x --mfu 2", "expected 0.01 to 1 for --mfu, got '2'"),
            ("plan x --threads", "expected --section.key=value, got '--threads'"),
            ("train x --dryrun", "did you mean '--dry-run'?"),
            ("generate x --prompts f --prompt a", "expected --prompt or --prompts, got both"),
            ("generate x --kv-budget 3", "expected --prompts with --kv-budget, got --kv-budget alone"),
            ("bench --config a --memory-only --no-memory", "expected --no-memory or --memory-only, got both"),
            ("launch -n 0 -- train", "expected 1 to 1024 for --ranks, got '0'"),
            ("launch -n 2", "expected COMMAND, got none"),
            ("launch -n 2 train x.yaml --threads=1", "the command goes after '--', as in 'dsmoe launch -n 2 -- train"),
        ]:
            with self.subTest(line=line):
                self.refused(*line.split(), says=[says])

    def test_a_misspelt_policy_is_corrected(self):
        for policy, says in [("top-k=2", "did you mean 'top_k=2'?"), ("topk=2", "did you mean 'top_k=2'?"),
                             ("Threshold=0.4", "did you mean 'threshold=0.4'?"), ("every=2", "expected all, top_k=K")]:
            with self.subTest(policy=policy):
                self.refused("eval", self.run_directory, "--data", self.text, "--policy", policy, says=[policy, says])

    def test_a_plan_gives_tokens_money_and_what_would_fit(self):
        line = ["plan", self.config, "--gpus", 2, "--price", "2.5", "--currency", "EUR", "--train.checkpoint_activations=full"]
        plan = json.loads(run(*line, "--gpu", "H100", "--json").stdout)
        self.assertEqual((plan["gpu"], plan["currency"], plan["mfu_source"], plan["tried_on_gpu"]), ("h100", "EUR", "roofline", False))
        self.assertEqual(plan["tokens_total"], 6 * 2 * 16)
        self.assertAlmostEqual(plan["tokens_per_day"] * plan["step_seconds"] / 86400, plan["tokens_per_step"], places=6)
        self.assertAlmostEqual(plan["cost"], 2.5 * plan["gpu_hours"])
        kept = plan["checkpoint_activations"]
        self.assertEqual([*kept], ["none", "selective", "full"])
        self.assertEqual(kept["full"], {"peak": plan["memory_bytes"]["peak"], "fits": plan["fits"]})
        roofline = json.loads(run(*line, "--json", "--roofline").stdout)
        products = sum(kernel["flops"] for kernel in roofline["step_kernels"])
        self.assertAlmostEqual(plan["mfu"], products / roofline["step_seconds"] / 989.4e12)
        given = json.loads(run(*line, "--json", "--mfu", "0.4").stdout)
        self.assertEqual((given["mfu"], given["mfu_source"]), (0.4, "given"))
        self.assertAlmostEqual(given["compute_seconds"] * 0.4, plan["compute_seconds"] * plan["mfu"])
        text = run(*line, "--train.steps=1000000").stdout
        for says in ("predicted by the roofline of its kernels", "1,000,000 steps, 32,000,000 tokens in all", " EUR at 2.5 EUR for",
                     "less would fit: checkpoint_activations none", "no GPU has been tried yet"):
            self.assertIn(says, text)

    def test_bad_keys_are_named_with_file_line_and_nearest_key(self):
        def edited(name, edit):
            return self.write_config(name, self.directory / "never", edit)

        path = edited("unknown.yaml", lambda text: text.replace("d_expert: 5", "d_exprt: 5"))
        self.refused("train", path, says=["unknown.yaml:16", "model.moe.d_exprt", "d_expert"])
        path = edited("twice.yaml", lambda text: text.replace("seed: 3", "seed: 3\nseed: 4"))
        self.refused("train", path, says=["twice.yaml", "seed"])
        path = edited("type.yaml", lambda text: text.replace("steps: 6", "steps: many"))
        self.refused("train", path, says=["type.yaml:22", "train.steps", "many"])
        path = edited("range.yaml", lambda text: text.replace("n_layers: 2", "n_layers: 0"))
        self.refused("train", path, says=["range.yaml:6", "model.n_layers"])
        path = edited("syntax.yaml", lambda text: text.replace("seed: 3", "seed: [3"))
        self.refused("train", path, says=["syntax.yaml"])
        self.refused("train", self.config, "--train.stepz=3", says=["train.stepz", "train.steps"])
        self.refused("train", self.config, "--train.steps=-3", says=["train.steps", "-3"])
        self.refused("train", self.config, "extra", says=["extra"])
        self.refused("train", self.directory / "none.yaml", says=["none.yaml"])
        self.refused("train")
        self.refused("walk")
        self.refused("bench", "--train", "--config", self.config, says=["model.vocab_size"])
        self.refused("bench", "--train", "--config", self.directory / "none.yaml", says=["none.yaml"])
        self.refused("bench", "--config", self.config, says=["model.vocab_size"])
        self.refused("bench", "--config", self.config, self.config, "--model.vocab_size=9", says=["--train"])
        self.refused("bench", "--config", self.run_directory, "--dtype", "int4", says=["int4"])
        self.refused("bench", "--config", self.run_directory, "--prompt", "17", says=["16"])
        self.refused("eval", self.run_directory, "--data", self.text, "--batch", "0", says=["batch"])
        self.assertFalse((self.directory / "never").exists())

    def test_text_comes_plain_or_compressed_as_lines_of_json_or_with_another_separator(self):
        texts = ["one two\n", "three", "four\n\nfive"]

        def tokens_of(name, data, *options):
            path = self.directory / name
            path.write_bytes(data)
            out = self.directory / f"{name}-{len(options)}-shards"
            done = run("tokenize", "--input", path, "--out", out, "--json", *options)
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads(done.stdout)
            record = json.loads((out / "dataset.json").read_text())
            return result["documents"], [shard["hash"] for shard in record["shards"]]

        plain = "<|endoftext|>".join(texts).encode()
        lines = "".join(json.dumps({"body": text}) + "\n" for text in texts).encode()
        expected = tokens_of("plain.txt", plain)
        self.assertEqual(expected[0], 3)
        self.assertEqual(tokens_of("plain.txt.gz", gzip.compress(plain)), expected)
        self.assertEqual(tokens_of("lines.jsonl.gz", gzip.compress(lines), "--field", "body"), expected)
        self.assertEqual(tokens_of("marked.txt", "##".join(texts).encode(), "--separator", "##"), expected)
        self.assertEqual(tokens_of("whole.txt", plain, "--separator", "")[0], 1)
        self.refused("tokenize", "--input", self.directory / "lines.jsonl.gz", "--out", self.directory / "never-lines",
                     says=["lines.jsonl.gz:1", "'text'"])

    def test_a_mixture_with_document_masks_trains_and_is_fixed_on_resume(self):
        run_directory = self.directory / "mixed"
        more = self.directory / "more.txt"
        more.write_text("<|endoftext|>".join(f"document {i}" for i in range(60)))
        shards = self.directory / "more-shards"
        self.assertEqual(run("tokenize", "--input", more, "--out", shards).returncode, 0)
        mixture = [f"--run_dir={run_directory}", f"--data.train=[{self.train}, {shards}]", "--data.document_mask=true"]
        done = run("train", self.config, *mixture, "--data.weights=[3, 1]", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(math.isfinite(json.loads(done.stdout)["validation_loss"]))
        self.refused("train", self.config, *mixture, "--data.weights=[1, 1]", "--train.steps=8", says=["data.weights"])
        self.refused("train", self.config, f"--run_dir={run_directory}", f"--data.train=[{shards}, {self.train}]",
                     "--data.document_mask=true", "--data.weights=[3, 1]", "--train.steps=8", says=["other tokens"])

    def test_bad_text_is_refused_and_leaves_nothing(self):
        out = self.directory / "never-shards"
        bad = self.directory / "bad.txt"
        bad.write_bytes(b"abc\xff")
        self.refused("tokenize", "--input", bad, "--out", out, says=[bad, "UTF-8", "offset 3"])
        bad.write_bytes(b"")
        self.refused("tokenize", "--input", bad, "--out", out, says=[bad, "empty"])
        self.refused("tokenize", "--input", self.directory / "none.txt", "--out", out, says=["none.txt"])
        lines = self.directory / "bad.jsonl"
        lines.write_text('{"text": "a"}\n{"txt": "b"}\n')
        self.refused("tokenize", "--input", lines, "--out", out, says=["bad.jsonl:2", "'text'"])
        self.refused("tokenize", "--input", self.text, "--out", out, "--tokenizer", "words", says=["words"])
        self.refused("tokenize", "--input", self.text, "--out", self.train, says=[self.train])
        self.refused("eval", self.run_directory, "--data", bad, says=[bad])
        self.assertEqual([path.name for path in self.directory.iterdir() if "never-shards" in path.name], [])

    def test_data_that_does_not_fit_is_refused(self):
        short = self.directory / "short.txt"
        short.write_text("abc")
        shards = self.directory / "short"
        run("tokenize", "--input", short, "--out", shards)
        elsewhere = self.directory / "never"
        self.refused("train", self.config, f"--run_dir={elsewhere}", f"--data.train={shards}", says=["17 tokens", "4"])
        bpe = self.shards("train:bpe:280")
        self.refused("train", self.config, f"--run_dir={elsewhere}", f"--data.validation={bpe}", says=["tokenizer"])
        self.refused("train", self.config, f"--run_dir={elsewhere}", "--model.vocab_size=100", says=["vocab", "257"])
        self.refused("eval", self.run_directory, "--data", bpe, says=["bytes-257", "sentencepiece"])
        self.refused("train", self.config, f"--data.train={bpe}", says=["tok"])  # resume with other tokens
        shard = pathlib.Path(shutil.copytree(self.train, self.directory / "altered")) / "shard-00000.bin"
        flip_byte(shard, 20)
        self.refused("train", self.config, f"--run_dir={elsewhere}", f"--data.train={shard.parent}",
                     says=["shard-00000.bin"])
        self.assertFalse(elsewhere.exists())

    def test_policies_and_prompts_that_do_not_fit_are_refused(self):
        for policy in ["top_k=5", "top_k=0", "threshold=-1", "moa:top_k=4", "half", "routing=none.yaml"]:
            self.refused("eval", self.run_directory, "--data", self.text, "--policy", policy)
        self.refused("eval", self.run_directory, "--data", self.text, "--policy", "top_k=5", says=["5", "4"])
        self.refused("eval", self.run_directory, "--data", self.text, "--window", "17", says=["16"])
        self.refused("eval", self.run_directory, "--data", self.text, "--stride", "17", says=["stride"])
        self.refused("generate", self.run_directory, "--prompt", "x" * 16, says=["17 tokens", "16"])
        self.refused("generate", self.run_directory, "--prompt", "x", "--top-p", "2", says=["top-p"])
        self.refused("generate", self.run_directory, "--prompt", "x", "--draft", "top_k=99", says=["top_k"])
        self.refused("generate", self.run_directory, "--prompt", "x", "--draft-tokens", "2", says=["--draft"])
        self.refused("generate", self.run_directory, "--prompt", "x", "--device", "tpu", says=["tpu"])
        self.refused("generate", self.run_directory, "--prompt", "x", "--dtype", "float8", says=["float8"])
        self.refused("inspect", self.directory, says=[self.directory])
        self.refused("inspect", self.directory / "none", says=["none"])

    @unittest.skipIf(os.path.exists("/dev/nvidiactl"), "this machine has an NVIDIA driver")
    def test_a_missing_device_is_named(self):
        module = pathlib.Path(DSMOE).with_name("dsmoe_cuda.so")
        missing = "Found no NVIDIA driver" if module.exists() else "was built without CUDA"
        elsewhere = self.directory / "no-device"
        says = ["device cuda: ", missing]
        self.refused("train", self.config, f"--run_dir={elsewhere}", "--device", "cuda", says=says)
        self.refused("train", self.config, f"--run_dir={elsewhere}", "--device=cuda", says=says)
        self.assertFalse(elsewhere.exists())
        self.refused("eval", self.run_directory, "--data", self.text, "--device", "cuda", says=says)
        self.refused("generate", self.run_directory, "--prompt", "x", "--device", "cuda", says=says)
        self.refused("generate", self.run_directory, "--prompt", "x", "--device", "cuda", "--dtype", "int8", says=["--dtype int8"])
        self.refused("bench", "--train", "--config", self.config, "--device=cuda", says=says)
        self.refused("bench", "--config", self.config, "--model.vocab_size=257", "--device=cuda", says=says)

    def test_altered_checkpoints_are_refused_by_file_and_tensor(self):
        directory = self.copy_of_run()
        for older in sorted((directory / "checkpoints").glob("step-*"))[:-1]:
            shutil.rmtree(older)
        checkpoint = newest_checkpoint(directory)
        weights = next(checkpoint.glob("model-*.safetensors"))
        size = weights.stat().st_size
        flip_byte(weights, size - 5)
        for command in [["inspect"], ["generate", "--prompt", "x"], ["eval", "--data", self.text]]:
            self.refused(command[0], checkpoint, *command[1:], says=[weights.name, "tensor '"])
        self.refused("train", self.config, f"--run_dir={self.directory / 'other'}", f"--resume={checkpoint}",
                     says=[weights.name])
        flip_byte(weights, size - 5)
        self.assertEqual(run("inspect", checkpoint).returncode, 0)
        os.truncate(weights, size - 100)
        self.refused("inspect", checkpoint, says=[weights.name, str(size)])
        os.unlink(checkpoint / "manifest.json")
        self.refused("inspect", checkpoint, says=["manifest.json"])
        self.refused("inspect", directory)  # nothing valid is left in the run

    def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(self):
        directory = self.copy_of_run()
        flip_byte(next(newest_checkpoint(directory).glob("model-*.safetensors")), 2000)
        done = run("inspect", directory, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["step"], 3)
        self.assertIn("step-00000006", done.stderr)


if __name__ == "__main__":
    unittest.main()
