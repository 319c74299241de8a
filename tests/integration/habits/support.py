"""Shared by the tests of habits: the program, a small text, a tiny run and a tiny LLaMA directory.

Each module beside this one tests one subject: ordinary actions at a shell and their results.
Usage of each: NAME_test.py PATH/TO/dsmoe
"""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

DSMOE = os.path.abspath(sys.argv.pop(1))

TEXT = "".join(f"line {i}: the king said no, and no one heard the king.\n" for i in range(400))

CONFIG = """\
run_dir: run
seed: 1
threads: 1
model:
  d_model: 64
  n_layers: 2
  max_seq_len: 64
  attention: {kind: moa, head_dim: 16}
  moa: {n_experts: 2, heads_per_expert: 2, router: {kind: linear}}
  ffn: {kind: moe, activation: gelu_tanh}
  moe: {n_experts: 4, d_expert: 32, router: {kind: linear}}
data: {train: data}
train:
  steps: 12
  batch_size: 8
  log_every: 10
  validate_every: 0
  save_every: 50
  compute_dtype: float32
  schedule: {kind: cosine, peak: 3.0e-3, warmup_steps: 4, final_ratio: 0.1}
"""


def run(*arguments, cwd, timeout=120, **options):
    """Runs the program to its end; returns output and exit code."""
    options = {"capture_output": True, "text": True} | options
    return subprocess.run([DSMOE, *map(str, arguments)], cwd=cwd, timeout=timeout, **options)


class HabitsTest(unittest.TestCase):
    """A fresh directory for each test, and commands that run in it."""

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-habits-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def run_dsmoe(self, *arguments, **options):
        return run(*arguments, cwd=self.directory, **options)

    def succeeds(self, *arguments, **options):
        """The command must end with 0; returns the finished process."""
        done = self.run_dsmoe(*arguments, **options)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stderr}")
        return done

    def prints_json(self, *arguments, **options):
        """The command must end with 0; returns the object that its --json prints."""
        return json.loads(self.succeeds(*arguments, "--json", **options).stdout)

    def refused(self, *arguments, says=(), code=2, **options):
        """The command must end with `code` and one line with every text of `says`."""
        done = self.run_dsmoe(*arguments, **options)
        stderr = done.stderr if isinstance(done.stderr, str) else done.stderr.decode()
        complaints = [line for line in stderr.splitlines() if line.startswith("dsmoe: ")]
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stderr}")
        self.assertEqual(len(complaints), 1, done.stderr)
        for text in says:
            self.assertIn(str(text), complaints[0])
        return done

    def write(self, name, content):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def tiny_run(self, name="run", *overrides, text=TEXT, tokenizer="bytes"):
        """Trains a model of a few thousand parameters for a few steps; returns its run directory."""
        if not (self.directory / "tiny.yaml").exists():
            self.write("tiny.yaml", CONFIG)
        self.write(f"{name}-text.txt", text)
        self.succeeds("tokenize", "--input", f"{name}-text.txt", "--tokenizer", tokenizer, "--out", f"{name}-data", "--threads", 1)
        self.succeeds("train", "tiny.yaml", f"--run_dir={name}", f"--data.train={name}-data", *overrides)
        return self.directory / name

    def llama(self, name="hf", **options):
        """Writes a tiny Hugging Face LLaMA directory (write_llama) and returns its path."""
        return write_llama(self.directory / name, **options)


# The printable stand-ins of byte-level BPE, in the order of bytes.
def byte_characters():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("a", "n")]
N_PLAIN_TOKENS = 256 + len(MERGES)  # the added tokens come after


def bpe_tokenizer(specials, template=""):
    """A byte-level BPE tokenizer.json of 256 bytes, four merges and `specials`; `template` goes before a text."""
    vocabulary = {token: i for i, token in enumerate(byte_characters() + [a + b for a, b in MERGES])}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": N_PLAIN_TOKENS + i, "content": content} | plain for i, content in enumerate(specials)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False}
    model |= {"continuing_subword_prefix": None, "end_of_word_suffix": None, "vocab": vocabulary}
    model["merges"] = [" ".join(pair) for pair in MERGES]
    post = None
    if template:
        post = {"type": "TemplateProcessing", "pair": []}
        post["single"] = [{"SpecialToken": {"id": template, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        ids = [N_PLAIN_TOKENS + specials.index(template)]
        post["special_tokens"] = {template: {"id": template, "ids": ids, "tokens": [template]}}
    return {"version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": byte_level,
            "post_processor": post, "decoder": byte_level, "model": model}


def llama_shapes(config):
    d_model, d_ffn, vocab_size = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = config.get("head_dim") or d_model // config["num_attention_heads"]
    query, key = head_dim * config["num_attention_heads"], head_dim * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": [vocab_size, d_model], "model.norm.weight": [d_model]}
    for layer in range(config["num_hidden_layers"]):
        attention, ffn = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        for name, rows in (("q", query), ("k", key), ("v", key)):
            shapes[f"{attention}{name}_proj.weight"] = [rows, d_model]
        shapes[f"{attention}o_proj.weight"] = [d_model, query]
        shapes |= {f"{ffn}gate_proj.weight": [d_ffn, d_model], f"{ffn}up_proj.weight": [d_ffn, d_model]}
        shapes[f"{ffn}down_proj.weight"] = [d_model, d_ffn]
        for norm in ("input", "post_attention"):
            shapes[f"model.layers.{layer}.{norm}_layernorm.weight"] = [d_model]
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [vocab_size, d_model]
    return shapes


def write_safetensors(path, tensors):
    """tensors: name -> (shape, float32 values)."""
    header, blob = {}, bytearray()
    for name, (shape, values) in tensors.items():
        begin = len(blob)
        blob += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(blob)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)


def write_llama(directory, config=None, specials=("<|bos|>", "<|eos|>"), tokenizer_config=None, generation_config=None,
                template="", tokenizer=True, scale=0.3, drop=(), extra=None):
    """A tiny LLaMA with random weights and a byte-level BPE tokenizer, as transformers would save it.

    config, tokenizer_config, generation_config: keys of those files (None: no such file); drop: tensors left out;
    extra: name -> shape of further tensors.
    """
    specials = list(specials)
    full = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 128, "tie_word_embeddings": False,
            "vocab_size": N_PLAIN_TOKENS + len(specials), "bos_token_id": N_PLAIN_TOKENS, "eos_token_id": N_PLAIN_TOKENS + 1}
    full |= config or {}
    draw = random.Random(7)
    tensors = {}
    for name, shape in (llama_shapes(full) | (extra or {})).items():
        count = 1
        for size in shape:
            count *= size
        tensors[name] = (shape, [1.0] * count if "norm" in name else [draw.gauss(0, scale) for _ in range(count)])
    for name in drop:
        del tensors[name]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(full, indent=1))
    write_safetensors(directory / "model.safetensors", tensors)
    if tokenizer:
        (directory / "tokenizer.json").write_text(json.dumps(bpe_tokenizer(specials, template), ensure_ascii=False))
    for name, content in (("tokenizer_config.json", tokenizer_config), ("generation_config.json", generation_config)):
        if content is not None:
            (directory / name).write_text(json.dumps(content))
    return directory


def main():
    unittest.main()
