#!/usr/bin/env python3
"""Writes small random LLaMAs and byte-level BPE tokenizers with what transformers computes from them.

Usage: make_llama_golden.py OUT. The committed files were made by `scripts/compare_transformers.sh --write`, which pins
the versions. Each folder is a model directory as transformers saves it, with `expected.safetensors`: `tokens`
[2, 12] int64 and `logits` [2, 12, vocab_size] float32, computed in float32.
"""
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# Kept, blended and divided frequencies all occur: wavelengths 6.3 to 2,000 against a context of 64.
MODELS = {
    "llama_gqa": dict(num_key_value_heads=2, tie_word_embeddings=False, rms_norm_eps=1e-5),
    "llama_llama3": dict(
        num_key_value_heads=1, tie_word_embeddings=True, rope_scaling=LLAMA3_ROPE, rope_theta=2000.0, head_dim=8
    ),
    "llama_bias": dict(num_key_value_heads=4, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
}
DTYPES = {"llama_gqa": torch.float32, "llama_llama3": torch.bfloat16, "llama_bias": torch.float16}
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = [
    "",
    "Once upon a time, there was a little girl named Lily.",
    "  two blanks, \ttabs\n\n\nand lines \r\n end  ",
    "I'm sure YOU'LL say it's 12345 or 1,234.5 !!!???...",
    "caf\u00e9 na\u00efve \u4f60\u597d \U0001f600\U0001f468\u200d\U0001f469 \u0391\u03b2",
    "<|begin_of_text|>the<|end_of_text|> <|begin_of_text| the",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u00a0no-break\u2028line separator\u0085next",
    "the\u0000null",
]


def write_model(out: pathlib.Path, name: str, seed: int, vocab_size: int = 40) -> None:
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=vocab_size,
        max_position_embeddings=128,
        **MODELS[name],
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        for module in model.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.weight.copy_(1 + 0.3 * torch.randn_like(module.weight))
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model = model.to(DTYPES[name])
    model.save_pretrained(folder, max_shard_size="4KB" if name == "llama_llama3" else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = torch.randint(0, vocab_size, (2, 12))
    with torch.no_grad():
        # Loaded again: a cast would round the rotary frequencies too.
        logits = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(tokens).logits
    save_file({"tokens": tokens, "logits": logits.contiguous()}, folder / "expected.safetensors")


def make_tokenizer(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    if kind == "llama3":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(TEXTS[1:5]) * 2 + " the then there them lily Lily time times"], trainer)
    tokenizer.add_special_tokens(
        [AddedToken("<|begin_of_text|>", special=True), AddedToken("<|end_of_text|>", special=True)]
    )
    if kind == "llama3":
        begin = tokenizer.token_to_id("<|begin_of_text|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
        )
    return tokenizer


def write_tokenizer(out: pathlib.Path, kind: str) -> None:
    folder = out / f"bpe_{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(kind)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
    (folder / "expected.json").write_text(json.dumps(cases, indent=0) + "\n")


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(MODELS):
        write_model(out, name, seed)
    for kind in ("llama3", "gpt2"):
        write_tokenizer(out, kind)


if __name__ == "__main__":
    main()
