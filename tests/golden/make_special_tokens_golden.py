#!/usr/bin/env python3
"""Makes tests/golden/special_tokens: what transformers and tokenizers make of the files that say special tokens.

Opt-in; needs transformers 5.24, tokenizers 0.23, sentencepiece and protobuf from the Python index. No test runs it.
Usage: make_special_tokens_golden.py   (from the root of the repository)
"""

import io
import json
import pathlib
import random
import tempfile

import sentencepiece
from tokenizers import Tokenizer
from transformers import AutoTokenizer

OUT = pathlib.Path("tests/golden/special_tokens")
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
IM = ["<|im_start|>", "<|im_end|>"]


def byte_characters():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def bpe(added, template=None):
    """tokenizer.json: a token for each byte and one merge; added: contents, or objects with flags."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocabulary = {token: i for i, token in enumerate(byte_characters() + ["th"])}
    added = [{"id": 257 + i} | PLAIN | (item if isinstance(item, dict) else {"content": item}) for i, item in enumerate(added)]
    post = None
    if template:
        item = next(token for token in added if token["content"] == template)
        special = {"SpecialToken": {"id": template, "type_id": 0}}
        post = {"type": "TemplateProcessing", "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [special, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {template: {"id": template, "ids": [item["id"]], "tokens": [template]}}}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": ["t h"]}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": post, "decoder": byte_level, "model": model}


def decoder(first, contents, **flags):
    return {str(first + i): PLAIN | {"content": content} | flags for i, content in enumerate(contents)}


FAST = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
OWN = {"0": PLAIN | {"content": "<unk>"}, "1": PLAIN | {"content": "<s>"}, "2": PLAIN | {"content": "</s>"}}

# name -> files of the directory; "pieces" stands for the SentencePiece model of 320 pieces.
DIRECTORIES = {
    "bpe without a template": {
        "tokenizer.json": bpe(["<|bos|>", "<|eos|>"]),
        "tokenizer_config.json": FAST | {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "add_bos_token": False}},
    "bpe with a template": {
        "tokenizer.json": bpe(["<|bos|>", "<|eos|>"], "<|bos|>"),
        "tokenizer_config.json": FAST | {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|eos|>"}},
    "bpe with a template against add_bos_token": {
        "tokenizer.json": bpe(["<|bos|>", "<|eos|>"], "<|bos|>"),
        "tokenizer_config.json": FAST | {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "add_bos_token": False}},
    "names in special_tokens_map.json": {
        "tokenizer.json": bpe(["<|bos|>", "<|eos|>", *IM]),
        "tokenizer_config.json": FAST | {"bos_token": "<|bos|>", "eos_token": "<|eos|>"},
        "special_tokens_map.json": {"eos_token": {"content": "<|im_end|>", "lstrip": False, "normalized": False,
                                                  "rstrip": False, "single_word": False}}},
    "added_tokens_decoder hides special_tokens_map.json": {
        "tokenizer.json": bpe(["<|bos|>", "<|eos|>", *IM]),
        "tokenizer_config.json": FAST | {"bos_token": "<|bos|>", "eos_token": "<|eos|>",
                                         "added_tokens_decoder": decoder(257, ["<|bos|>", "<|eos|>", *IM])},
        "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
    "added_tokens_decoder past tokenizer.json": {
        "tokenizer.json": bpe(["<|bos|>", "<|eos|>"]),
        "tokenizer_config.json": FAST | {"bos_token": "<|bos|>", "eos_token": "<|im_end|>",
                                         "added_tokens_decoder": decoder(257, ["<|bos|>", "<|eos|>", *IM]) |
                                         decoder(261, ["<tool>"], special=False)}},
    "added_tokens_decoder changes flags": {
        "tokenizer.json": bpe(["<|bos|>", "<|eos|>"]),
        "tokenizer_config.json": FAST | {"eos_token": "<|eos|>", "added_tokens_decoder": decoder(257, ["<|bos|>"]) |
                                         decoder(258, ["<|eos|>"], rstrip=True)}},
    "pieces with added_tokens.json": {
        "tokenizer.model": "pieces",
        "tokenizer_config.json": LLAMA | {"eos_token": "<|im_end|>"},
        "added_tokens.json": {"<|im_start|>": 320, "<|im_end|>": 321}},
    "pieces with added_tokens_decoder": {
        "tokenizer.model": "pieces",
        "tokenizer_config.json": LLAMA | {"eos_token": "<|im_end|>", "pad_token": "<unk>",
                                          "added_tokens_decoder": OWN | decoder(320, IM) | decoder(322, ["<tool>"], special=False)},
        "added_tokens.json": {"<|im_start|>": 320, "<|im_end|>": 321, "<tool>": 322}},
    "pieces without BOS": {
        "tokenizer.model": "pieces",
        "tokenizer_config.json": LLAMA | {"add_bos_token": False, "added_tokens_decoder": OWN}},
    "pieces with legacy blanks": {
        "tokenizer.model": "pieces",
        # LlamaTokenizer 5.24 leaves out the blank before a piece that begins with one, which the model and older releases add.
        "tokenizer_config.json": LLAMA | {"tokenizer_class": "PreTrainedTokenizerFast", "legacy": True,
                                          "added_tokens_decoder": OWN | decoder(320, IM)}},
    "pieces and tokens that take blanks": {
        "tokenizer.model": "pieces",
        "tokenizer_config.json": LLAMA | {"added_tokens_decoder": OWN | decoder(320, IM, rstrip=True) |
                                          decoder(322, ["<mask>"], lstrip=True, special=False)}},
}

TEXTS = ["the man", "", "<|im_start|>user\nthe man<|im_end|>\n", "a<|im_end|> b", "the <|bos|>man<|eos|>", "x <tool> y<tool>z",
         "<|eos|> \n a", "a <mask> b", "the</s>man", "one\n<|im_start|> two\n", "<tool>", "the man <s> said"]

FLAGGED = [{"content": "<a>"}, {"content": "<a>b"}, {"content": "<l>", "lstrip": True}, {"content": "<r>", "rstrip": True},
           {"content": "<lr>", "lstrip": True, "rstrip": True, "special": False}, {"content": "word", "single_word": True},
           {"content": "two words", "normalized": True, "special": False}, {"content": "words<", "normalized": True},
           {"content": "<n>", "normalized": True, "rstrip": True}, {"content": "\u00e9t\u00e9", "single_word": True, "lstrip": True},
           {"content": " <b>"}]
PIECES = [token["content"] for token in FLAGGED] + [
    " ", "  ", "\n", "\t", "\u00a0", "\u3000", "\u2009", "\u200b", "\u200d", "_", "-", "a", "Z", "7", "\u0663", "\u0301",
    "\u4e2d", "\u2160", "<", ">", "wor", "d", "two", ".", "\U0001d54f", "\u203f"]


def pieces_model():
    text = pathlib.Path("data/tinyshakespeare/valid.txt").read_text()[:60000]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=model, vocab_size=320, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
    return model.getvalue()


def observed(files, model, directory):
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(model if content == "pieces" else json.dumps(content).encode())
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 330}))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    cases = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS]
    for case in cases:
        case["decoded"] = tokenizer.decode(case["ids"], skip_special_tokens=True)
    return {"files": files, "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id,
            "n_ids": len(tokenizer), "cases": cases}


def flagged_cases():
    tokenizer = Tokenizer.from_str(json.dumps(bpe(FLAGGED)))
    draw = random.Random(20)
    cases = []
    for _ in range(250):
        text = "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 9)))
        cases.append({"text": text, "ids": tokenizer.encode(text).ids})
    return {"tokenizer": bpe(FLAGGED), "cases": cases}


def write(name, value):
    (OUT / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        model = pieces_model()
        (OUT / "pieces.model").write_bytes(model)
        result = {name: observed(files, model, directory / str(i)) for i, (name, files) in enumerate(DIRECTORIES.items())}
    write("directories.json", result)
    write("flags.json", flagged_cases())


main()
