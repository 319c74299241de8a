#!/usr/bin/env python3
"""Compares `dsmoe` with transformers on fresh random LLaMAs over byte tokens: the loss of a text after import, 24 greedy
tokens with a cache, and the logits of what `dsmoe export` writes back.

Usage: compare_transformers.py DSMOE WORK (WORK: a folder for models; it is written into)
"""
import json
import pathlib
import random
import subprocess
import sys

import torch
from make_llama_golden import DTYPES, MODELS, write_model
from transformers import LlamaForCausalLM

BOS = 256  # of the byte tokenizer
TEXT = "The quick brown fox jumps over the lazy dog; 0123456789 times, and then again."


def run(*arguments: str) -> dict:
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def compare(dsmoe: str, work: pathlib.Path, name: str) -> None:
    write_model(work, name, random.randrange(1 << 30), vocab_size=257)
    source, native, back = work / name, work / f"{name}-native", work / f"{name}-back"
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    run(dsmoe, "convert", str(source), str(native), "--tokenizer", "bytes", "--json")

    text_file = work / "text.txt"
    text_file.write_text(TEXT)
    ids = torch.tensor([[BOS, *TEXT.encode()]])
    with torch.no_grad():
        logits = model(ids).logits
    nats = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
    ours = run(dsmoe, "eval", str(native), "--data", str(text_file), "--documents", "--json")["nats_total"]

    prompt = torch.tensor([[BOS, *b"The "]])
    expected = model.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=BOS, pad_token_id=0)[0, 5:]
    made = run(dsmoe, "generate", str(native), "--prompt", "The ", "--max-tokens", "24", "--temperature", "0", "--json")

    dtype = str(DTYPES[name]).removeprefix("torch.")
    run(dsmoe, "export", str(native), str(back), "--to", "hf-llama", "--dtype", dtype, "--json")
    with torch.no_grad():
        again = LlamaForCausalLM.from_pretrained(back, dtype=torch.float32).eval()(ids).logits
    loss_error = abs(ours - nats) / (ids.shape[1] - 1)
    logit_error = (again - logits).abs().max().item()
    greedy = made["completions"][0]["ids"] == expected.tolist()
    print(f"{name}: loss differs by {loss_error:.1e} nats a token, export's logits by {logit_error:.1e}, greedy equal: {greedy}")
    assert loss_error < 1e-5 and logit_error < 1e-4 and greedy


def main() -> None:
    dsmoe, work = sys.argv[1], pathlib.Path(sys.argv[2])
    for name in MODELS:
        compare(dsmoe, work, name)


if __name__ == "__main__":
    main()
