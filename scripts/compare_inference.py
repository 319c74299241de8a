#!/usr/bin/env python3
"""Compares the inference of two builds digit for digit: compare_inference.py OLD NEW [--llama FILE.bin --tokenizer FILE.bin]

Models: a mixture that OLD trains, a LLaMA (a llama2.c file with --llama, else a dense model that OLD trains), and that LLaMA
cut into experts. Compared: perplexities, sums of log-probabilities, likelihoods of choices, greedy and sampled texts, over
policies, executions, dtypes and threads. NEW may print more than OLD. Exit code 1: a difference, named on standard output.
compare_training.py does the same for training.
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
CONFIG = """\
run_dir: {run}
seed: 7
threads: 1
model:
  d_model: 32
  n_layers: 2
  max_seq_len: 64
  attention: {attention}
{mixture}
  ffn: {ffn}
data: {{train: {data}, validation: {data}}}
train:
  steps: 50
  batch_size: 4
  accumulation: 2
  compute_dtype: float32
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
    "dense": dict(attention=DENSE_ATTENTION, mixture="", ffn="{kind: dense, activation: swiglu, d_ffn: 96}",
                  loss="{}"),
    "moa": dict(attention="{kind: moa, head_dim: 8}", mixture=MOA + MOE % "linear",
                ffn="{kind: moe, activation: swiglu}", loss="{moe_mi_weight: 1.0e-2, moa_mi_weight: 1.0e-3}"),
}


def run(program, *arguments):
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, env=environment, errors="replace")
    if done.returncode != 0:
        sys.exit(f"compare_inference: {program} {' '.join(map(str, arguments))} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def kept(value):
    """Removes the values that may differ between two runs of one program."""
    if isinstance(value, dict):
        return {key: kept(each) for key, each in value.items() if "second" not in key and key not in ("peak_memory_bytes", "ms_per_token")}
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

    def command(self, *arguments):
        differences = missing_or_changed(*(kept(json.loads(run(program, *arguments, "--json"))) for program in (self.old, self.new)))
        self.compared += 1
        if differences:
            self.differing += 1
            print(f"DIFFERS {' '.join(map(str, arguments))}: {'; '.join(differences[:3])}", flush=True)

    def config(self, kind, run_directory, data):
        path = self.directory / f"{run_directory.name}.yaml"
        path.write_text(CONFIG.format(run=run_directory, data=data, **MODELS[kind]))
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
            self.command(command, mixture, "--data", text, *extra)

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
                if policy == "all" and dtype != "int8" and model.name != "dense":
                    self.command("generate", *common, "--prompt", "ROMEO:", "--max-tokens", 24, "--draft", "top_k=1",
                                 "--temperature", 0)
        for execution in ("dense", "sparse"):
            self.command("eval", model, "--data", text, "--policy", policy, "--execution", execution)
        self.command("eval", model, "--choices", choices, "--policy", policy)

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--llama")
    parser.add_argument("--tokenizer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dsmoe-compare-") as directory:
        comparison = Comparison(options.old, options.new, pathlib.Path(directory))
        comparison.inference(comparison.tokens(), options.llama, options.tokenizer)
    print(f"{comparison.compared} results compared, {comparison.differing} differ")
    sys.exit(1 if comparison.differing else 0)


if __name__ == "__main__":
    main()
