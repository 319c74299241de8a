#!/usr/bin/env python3
"""Checks that two builds of dsmoe compute the same results: every digit and byte of the second equals that of the first.

Usage: compare_builds.py OLD_DSMOE NEW_DSMOE [--only inference|training] [--llama FILE.bin --tokenizer FILE.bin]

Inference: the sums of log-probabilities, perplexities, likelihoods of choices, greedy and sampled ids of a mixture trained by
the old build, of a LLaMA (a llama2.c file with --llama, else a dense model trained here), and of that LLaMA cut into experts;
over policies, executions, dtypes and threads. Training: every number of 50 steps' metrics and every byte of the weights, for
five kinds of model, on one rank and on two; then the new build resumes from the checkpoint of step 25 of the old one.
For a change that must not alter results: keep the program built before it, and compare.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = ROOT / "data/tinyshakespeare/valid.txt"
# Keys of times and names of the run, not of results.
FREE = {"seconds", "tokens_per_second", "decode_tokens_per_second", "prompt_tokens_per_second", "prompt_seconds",
        "decode_seconds", "mfu", "time", "peak_memory_bytes", "step_seconds", "run_dir", "start", "git", "version"}

CONFIG = """\
run_dir: {run}
seed: 7
threads: 1
model:
  d_model: 32
  n_layers: 2
  max_seq_len: 64
  training_policy: {policy}
  attention: {attention}
{mixture}
  ffn: {ffn}
data: {{train: {data}, validation: {data}}}
train:
  steps: 50
  batch_size: 4
  accumulation: 2
  compute_dtype: {dtype}
  log_every: 1
  validate_every: 25
  save_every: 25
  keep_checkpoints: 9
  schedule: {{peak: 3.0e-3, warmup_steps: 5}}
  loss: {loss}
"""
MOA = "  moa: {n_experts: 3, heads_per_expert: 2, router: {kind: linear}}\n"
MOE = "  moe: {n_experts: 8, d_expert: 24, router: {kind: %s}}\n"
DENSE_ATTENTION = "{kind: dense, head_dim: 8, n_heads: 4, n_kv_heads: 2}"
MODELS = {
    "dense": dict(policy="all", attention=DENSE_ATTENTION, mixture="", ffn="{kind: dense, activation: swiglu, d_ffn: 96}",
                  loss="{}"),
    "ffn": dict(policy="all", attention=DENSE_ATTENTION, mixture=MOE % "swiglu, d_hidden: 8",
                ffn="{kind: moe, activation: gelu_tanh}", loss="{moe_mi_weight: 1.0e-2}"),
    "moa": dict(policy="all", attention="{kind: moa, head_dim: 8}", mixture=MOA + MOE % "linear",
                ffn="{kind: moe, activation: swiglu}", loss="{moe_mi_weight: 1.0e-2, moa_mi_weight: 1.0e-3}"),
    "top-k": dict(policy="top_k=2", attention=DENSE_ATTENTION, mixture=MOE % "linear",
                  ffn="{kind: moe, activation: gelu_tanh}",
                  loss="{moe_mi_weight: 0, moa_mi_weight: 0, switch_weight: 1.0e-2}"),
    "partitioned": dict(policy="threshold=0.5", attention=DENSE_ATTENTION,
                        mixture="  moe: {n_experts: 4, d_expert: 24, router: {kind: linear}}\n",
                        ffn="{kind: partitioned, activation: swiglu, d_ffn: 96}", loss="{sparsity_weight: 1.0e-2}"),
}


def run(program, *arguments):
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, env=environment, errors="replace")
    if done.returncode != 0:
        sys.exit(f"compare_builds: {program} {' '.join(map(str, arguments))} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def kept(value):
    """Removes the values that may differ between two runs of one program."""
    if isinstance(value, dict):
        return {key: kept(each) for key, each in value.items() if key not in FREE}
    return [kept(each) for each in value] if isinstance(value, list) else value


def missing_or_changed(old, new, where=""):
    """Returns the paths of values of `old` that `new` lacks or changes; additions are allowed."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [path for key in old for path in missing_or_changed(old[key], new.get(key), f"{where}.{key}")]
    return [] if old == new else [f"{where}: {old!r} became {new!r}"[:300]]


class Comparison:
    def __init__(self, old, new, directory):
        self.old, self.new, self.directory = old, new, directory
        self.compared, self.differing = 0, 0

    def judge(self, what, differences):
        self.compared += 1
        if differences:
            self.differing += 1
            print(f"DIFFERS {what}: {'; '.join(differences[:3])}", flush=True)

    def command(self, *arguments):
        results = [kept(json.loads(run(program, *arguments, "--json"))) for program in (self.old, self.new)]
        self.judge(" ".join(map(str, arguments)), missing_or_changed(*results))

    def config(self, kind, run_directory, data, dtype="float32"):
        path = self.directory / f"{run_directory.name}.yaml"
        path.write_text(CONFIG.format(run=run_directory, data=data, dtype=dtype, **MODELS[kind]))
        return path

    def tokens(self):
        text, out = self.directory / "text.txt", self.directory / "shards"
        text.write_text(TEXT.read_text()[:60000])
        run(self.old, "tokenize", "--input", text, "--out", out)
        return out

    def inference(self, data, llama, tokenizer):
        text, choices, prompts = (self.directory / name for name in ("short.txt", "choices.jsonl", "prompts.txt"))
        text.write_text(TEXT.read_text()[:6000])
        choices.write_text("".join(json.dumps({"context": "My lord, ", "choices": [a, b], "answer": 0}) + "\n"
                                   for a, b in [("the king", "a king"), ("no more", "yes"), ("I go", "go I go")]))
        prompts.write_text("ROMEO:\nWhat say you to the king and\nO\n")
        mixture, dense, cut = (self.directory / name for name in ("mixture", "dense", "cut"))
        run(self.old, "train", self.config("moa", mixture, data))
        if llama:
            run(self.old, "convert", llama, dense, "--tokenizer", tokenizer)
        else:
            run(self.old, "train", self.config("dense", dense, data))
        run(self.old, "convert", dense, cut, "--partition", "n_experts=4", "--text", text)
        policies = {mixture: ["all", "top_k=2", "threshold=0.9", "threshold=0.5,max=2", "moe:top_k=1;moa:all", "threshold_top_k=0.9"],
                    dense: ["all"], cut: ["all", "top_k=2", "threshold=0.5"]}
        for model, some in policies.items():
            self.command("inspect", model)
            for policy in some:
                self.under(model, policy, text, choices, prompts)
        for command in ("curve", "check"):
            extra = ["--policies", "all", "top_k=1"] if command == "curve" else ["--policy", "threshold=0.9"]
            self.command(command, mixture, *(["--data", text] if command == "curve" else []), *extra)

    def under(self, model, policy, text, choices, prompts):
        for threads in (1, 2):
            for dtype in ("float32", "bfloat16", "int8"):
                common = [model, "--policy", policy, "--dtype", dtype, "--threads", threads]
                self.command("eval", *common, "--data", text)
                self.command("generate", *common, "--prompt", "ROMEO:", "--max-tokens", 40, "--temperature", 0)
                self.command("generate", *common, "--prompt", "ROMEO:", "--max-tokens", 40, "--seed", 5, "--top-p", 0.9)
                if policy.startswith("threshold_top_k"):
                    continue
                self.command("generate", *common, "--prompts", prompts, "--max-tokens", 24, "--seed", 5)
                if policy == "all" and dtype != "int8":
                    self.command("generate", *common, "--prompt", "ROMEO:", "--max-tokens", 24, "--draft", "top_k=1",
                                 "--temperature", 0)
        for execution in ("dense", "sparse"):
            self.command("eval", model, "--data", text, "--policy", policy, "--execution", execution)
        self.command("eval", model, "--choices", choices, "--policy", policy)

    def training(self, data):
        for kind in MODELS:
            for ranks, dtype in ((1, "float32"), (1, "bfloat16"), (2, "float32")):
                self.train(kind, ranks, dtype, data)

    def train(self, kind, ranks, dtype, data):
        name = f"{kind}-{ranks}-{dtype}"
        runs = {}
        for label, program in (("old", self.old), ("new", self.new)):
            runs[label] = self.directory / f"{name}-{label}"
            config = self.config(kind, runs[label], data, dtype)
            launch = ["launch", "-n", ranks, "--"] if ranks > 1 else []
            run(program, *launch, "train", config)
        self.judge(f"metrics of {name}", self.metrics_differences(runs["old"], runs["new"]))
        for step in (25, 50):
            self.judge(f"weights of {name} at step {step}",
                       self.weight_differences(*(runs[label] / f"checkpoints/step-{step:08d}" for label in ("old", "new"))))
        if ranks == 1:
            resumed = self.directory / f"{name}-resumed"
            run(self.new, "train", self.config(kind, resumed, data, dtype), f"--resume={runs['old'] / 'checkpoints/step-00000025'}")
            self.judge(f"{name} resumed by the new build at step 25",
                       self.weight_differences(runs["old"] / "checkpoints/step-00000050", resumed / "checkpoints/step-00000050"))

    @staticmethod
    def metrics_differences(old, new):
        lines = [[kept(json.loads(line)) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in (old, new)]
        if len(lines[0]) != len(lines[1]):
            return [f"{len(lines[0])} lines became {len(lines[1])}"]
        return [path for a, b in zip(*lines) for path in missing_or_changed(a, b)]

    @staticmethod
    def weight_differences(old, new):
        names = sorted(path.name for path in old.glob("*.safetensors"))
        if not names:
            return [f"no weights in {old}"]
        return [f"{name} differs" for name in names if tensor_bytes(old / name) != tensor_bytes(new / name)]


def tensor_bytes(path):
    """Names, shapes and bytes of a safetensors file, without its free-form metadata."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return header, data[8 + size:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--only", choices=["inference", "training"])
    parser.add_argument("--llama")
    parser.add_argument("--tokenizer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dsmoe-compare-") as directory:
        comparison = Comparison(options.old, options.new, pathlib.Path(directory))
        data = comparison.tokens()
        if options.only != "training":
            comparison.inference(data, options.llama, options.tokenizer)
        if options.only != "inference":
            comparison.training(data)
    print(f"{comparison.compared} results compared, {comparison.differing} differ")
    sys.exit(1 if comparison.differing else 0)


if __name__ == "__main__":
    main()
