#!/usr/bin/env python3
"""Compares exports with transformers: every directory of tests/golden/special_tokens is imported with a tiny LLaMA, exported
to hf-llama, and read by AutoTokenizer, whose ids and special tokens must be those of the golden.

Opt-in; needs transformers 5.24, sentencepiece and protobuf from the Python index. No test runs it.
Usage: compare_special_tokens.py PATH/TO/dsmoe   (from the root of the repository)
"""

import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, "tests/integration/habits")
from support import DSMOE, write_llama
from transformers import AutoTokenizer

GOLDEN = pathlib.Path("tests/golden/special_tokens")
# LlamaTokenizer 5.24, the class of an export, leaves out the blank before a piece that begins with one; the model, releases
# before 5 and the class of the golden add it.
OTHER_CLASS = "pieces with legacy blanks"


def exported(directory, expected):
    source = write_llama(directory / "source", tokenizer=False, config={"vocab_size": 330, "bos_token_id": None,
                                                                        "eos_token_id": [expected["eos"], 5]})
    for name, content in expected["files"].items():
        model = (GOLDEN / "pieces.model").read_bytes()
        (source / name).write_bytes(model if content == "pieces" else json.dumps(content).encode())
    for arguments in (["convert", source, directory / "own"], ["export", directory / "own", directory / "out", "--to", "hf-llama"]):
        subprocess.run([DSMOE, *map(str, arguments), "--threads", "1"], check=True, capture_output=True)
    return directory / "out"


def main():
    failed = 0
    for name, expected in json.loads((GOLDEN / "directories.json").read_text()).items():
        if name == OTHER_CLASS:
            continue
        with tempfile.TemporaryDirectory() as directory:
            out = exported(pathlib.Path(directory), expected)
            tokenizer = AutoTokenizer.from_pretrained(out)
            wrong = [case["text"] for case in expected["cases"] if tokenizer(case["text"])["input_ids"] != case["ids"]]
            ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
            ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
            same = ids == (expected["bos"], expected["eos"], expected["pad"]) and ends == [expected["eos"], 5]
            print(f"{'same' if same and not wrong else 'OTHER'}: {name} {'' if same else (ids, ends)} {wrong or ''}")
            failed += bool(wrong) or not same
    sys.exit(1 if failed else 0)


main()
