#!/usr/bin/env python3
"""Compares the ids of `dsmoe tokenize` with those of Hugging Face's tokenizers, for every form of tokenizer.json.

Usage: scripts/compare_tokenizers.py [--dsmoe build/dsmoe] [--strings 100000] [--contexts 8] [--write] [FORM ...]
For each form (pre-tokenizer, normalizer) every code point is encoded by itself and in seven contexts, then random strings.
--contexts 1 encodes the code points by themselves only.
Ends with 1 if any id differs. --write makes the goldens of tests/golden/pre_tokenizers from the package.
Installs scripts/requirements-tokenizers.txt into build/venv-tokenizers on the first run.
"""
import argparse
import itertools
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, "build", "venv-tokenizers")
GOLDEN = os.path.join(ROOT, "tests", "golden", "pre_tokenizers")

if not os.environ.get("DSMOE_IN_VENV"):
    python = os.path.join(VENV, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r",
                        os.path.join(ROOT, "scripts", "requirements-tokenizers.txt")], check=True)
    os.execve(python, [python] + sys.argv, {**os.environ, "DSMOE_IN_VENV": "1", "TOKENIZERS_PARALLELISM": "true"})

from tokenizers import Tokenizer  # noqa: E402
from tokenizers.pre_tokenizers import ByteLevel  # noqa: E402

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
HAN = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}&&[^\p{Han}]]+|\p{N}{1,3}" + TAIL
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def byte_level(use_regex=False, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def digits(individual):
    return {"type": "Digits", "individual_digits": individual}


def punctuation(behavior="Isolated"):
    return {"type": "Punctuation", "behavior": behavior}


NFC = {"type": "NFC"}
# Name: pre_tokenizer, normalizer.
FORMS = {
    "byte-level": (byte_level(True), None),
    "byte-level-prefix": (byte_level(True, True), None),
    "byte-level-bare": (byte_level(), None),
    "llama3": (sequence(split(LLAMA3), byte_level()), None),
    "qwen2": (sequence(split(QWEN2), byte_level()), NFC),
    "cl100k": (sequence(split(CL100K), byte_level()), None),
    "o200k": (sequence(split(O200K), byte_level()), None),
    "han": (sequence(split(HAN), byte_level()), None),
    "deepseek": (sequence(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                          split("[一-龥ࠀ-一가-\ud7ff]+"), digits(True), byte_level()), None),
    "deepseek-v2": (sequence(split(r"[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-Ί]+"),
                             split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"), split("[一-龥ࠀ-一가-\ud7ff]+"),
                             digits(True), byte_level()), {"type": "Sequence", "normalizers": []}),
    "deepseek-v3": (sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3), byte_level()), None),
    "digits": (sequence(digits(True), byte_level(True)), {"type": "Sequence", "normalizers": [NFC]}),
    "digits-runs-prefix": (sequence(digits(False), byte_level(True, True)), None),
    "punctuation": (sequence(punctuation("Contiguous"), byte_level(True)), None),
    "falcon": (sequence(punctuation("Contiguous"), sequence(digits(False)), split("[0-9][0-9][0-9]"), byte_level()), None),
    "bloom": (sequence(split(BLOOM), byte_level()), None),
    "removed": (sequence(split(r"\s+", "Removed"), byte_level()), None),
    "removed-inverted": (sequence(split(r"[\p{L}\p{N}]+", "Removed", True), byte_level()), None),
    "merged-previous": (sequence(split(r"[\p{P}\s]", "MergedWithPrevious"), byte_level()), None),
    "merged-next": (sequence(split(r"[\p{P}\s]", "MergedWithNext"), byte_level()), None),
    "contiguous": (sequence(split(r"\p{N}", "Contiguous"), byte_level()), None),
    "string": (sequence(split("a.", kind="String"), byte_level()), None),
    "empty-matches": (sequence(split(r"\p{L}*"), byte_level()), None),
    "look-behind": (sequence(split(r"(?<=[a-z\n])[A-Z]|^ +|\.$"), byte_level()), None),
    "lazy": (sequence(split(r"\p{L}{2}?|\p{N}{2,3}?|[\p{P}-]+?\s|x{,2}y"), byte_level()), None),
}
CONTEXTS = ("{0}", "a{0}b", " {0}", "{0}{0}", "1{0}", "'{0}", "A{0} {0}\n", "e{0}\u0301")
GOLDEN_CONTEXT = "a% %1%'%\n"


def tokenizer_json(form):
    pre_tokenizer, normalizer = FORMS[form]
    vocab = {c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}
    merges = []
    # Every two bytes merge: a cut between them shows in the ids.
    for a, b in itertools.product(sorted(ByteLevel.alphabet()), repeat=2):
        vocab[a + b] = len(vocab)
        merges.append([a, b])
    vocab["<s>"] = len(vocab)
    bos = {"id": vocab["<s>"], "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                         {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [vocab["<s>"]], "tokens": ["<s>"]}}}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [bos], "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": template, "decoder": byte_level(True),
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": vocab, "merges": merges}}


def code_points():
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def random_strings(count, seed=20):
    rng = random.Random(seed)
    every = code_points()
    blanks = " \t\n\r\u000b\u000c\u0085\u00a0\u1680\u180e\u2003\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
    marks = "".join(map(chr, (*range(0x300, 0x370), 0x345, 0x591, 0x5b0, 0x64b, 0x93c, 0x94d, 0xe38, 0x1dc0, 0x20d0,
                              0x302a, 0x3099, 0x1161, 0x1162, 0x11a8, 0x11c2, 0x1d165, 0x1d16d)))
    bases = "aeiouAEIOUnsk\u00c5\u212b\u212a\u1e69\u0958\u1100\u1112\uac00\uac01\u0915\u05d0\u0627\u3042\u304b\uf900\u4e2d"
    kinds = [
        lambda: rng.choice("abcdefghijklmnopqrstuvwxyz"), lambda: rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        lambda: rng.choice("0123456789\u0663\uff11\u00bd\u00b2\u216b\u3007"), lambda: rng.choice(blanks), lambda: " ",
        lambda: rng.choice("\r\n"), lambda: rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2026\u3002\u00a1\u2014"),
        lambda: rng.choice(("'s", "'S", "'\u017f", "'t", "'RE", "'ve", "'m", "'LL", "'l", "'d", "\u2019s", "'lL")),
        lambda: rng.choice(bases), lambda: rng.choice(marks), lambda: chr(rng.choice(every)),
        lambda: chr(rng.randrange(0x80, 0x3000)), lambda: chr(rng.randrange(0x4e00, 0x9fff)),
    ]
    for _ in range(count):
        text = ""
        for _ in range(rng.randrange(1, 12)):
            kind = rng.choice(kinds)
            for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
                text += kind()
        yield text


def all_texts(count, n_contexts):
    for context in CONTEXTS[:n_contexts]:
        for c in code_points():
            yield context.format(chr(c))
    yield from random_strings(count)


def ids_of(dsmoe, path, texts):
    """One list of ids for each text, read from the shards that `dsmoe tokenize` writes."""
    with tempfile.TemporaryDirectory() as work:
        with open(f"{work}/texts.jsonl", "w") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        subprocess.run([dsmoe, "tokenize", "--input", f"{work}/texts.jsonl", "--tokenizer", path, "--out", f"{work}/out",
                        "--json"], check=True, stdout=subprocess.DEVNULL)
        ids, starts = [], []
        for name in sorted(n for n in os.listdir(f"{work}/out") if n.startswith("shard-")):
            data = open(f"{work}/out/{name}", "rb").read()
            width, = struct.unpack_from("<I", data, 8)
            n_tokens, n_documents = struct.unpack_from("<Q", data, 24)[0], struct.unpack_from("<Q", data, 40)[0]
            end = 64 + n_tokens * width
            starts += [len(ids) + s for s in struct.unpack_from(f"<{n_documents}Q", data, end)]
            ids += struct.unpack_from(f"<{n_tokens}{'H' if width == 2 else 'I'}", data, 64)
    # Each document begins with BOS.
    return [ids[a + 1:b] for a, b in zip(starts, starts[1:] + [len(ids)])]


def batches(texts, size=200_000):
    batch = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def compare(dsmoe, form, count, n_contexts):
    tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(form)))
    n_texts = n_different = 0
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(tokenizer_json(form), file)
        file.flush()
        for batch in batches(all_texts(count, n_contexts)):
            expected = [e.ids for e in tokenizer.encode_batch(batch, add_special_tokens=False)]
            got = ids_of(dsmoe, file.name, batch)
            n_texts += len(batch)
            for text, theirs, ours in zip(batch, expected, got, strict=True):
                if list(ours) == theirs:
                    continue
                n_different += 1
                if n_different <= 5:
                    print(f"  {form}: {text!r} ({' '.join(f'{ord(c):x}' for c in text)})\n    expected {theirs}\n"
                          f"    got      {list(ours)}")
    print(f"{form:20} {n_texts:9} texts, {n_different} differ", flush=True)
    return n_different


def crc(lists):
    return f"{zlib.crc32(b''.join(struct.pack(f'<{len(ids)}i', *ids) + b';' for ids in lists)):08x}"


def write_goldens(forms):
    """Writes the files for tests/data/pre_tokenizer_golden_test.cpp: per form a checksum of the ids of each 4,096 code points
    (64 in a text, each in GOLDEN_CONTEXT), and one for each of some random strings."""
    os.makedirs(GOLDEN, exist_ok=True)
    strings = list(random_strings(300, seed=21))
    with open(f"{GOLDEN}/strings.json", "w") as file:
        json.dump({"context": GOLDEN_CONTEXT, "strings": strings}, file, indent=0)
        file.write("\n")
    for form in forms:
        pre_tokenizer, normalizer = FORMS[form]
        tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(form)))
        encode = lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        blocks = []
        for begin in range(0, 0x110000, 4096):
            # The planes in which no character is assigned: one in 16.
            step = 16 if begin >= 0x40000 and begin >> 16 != 14 else 1
            texts = ["".join(GOLDEN_CONTEXT.replace("%", chr(c)) for c in range(first, first + 64, step))
                     for first in range(begin, begin + 4096, 64) if not 0xD800 <= first < 0xE000]
            blocks.append(crc(encode(texts)))
        with open(f"{GOLDEN}/{form}.json", "w") as file:
            json.dump({"pre_tokenizer": pre_tokenizer, "normalizer": normalizer, "blocks": blocks,
                       "strings": [crc([ids]) for ids in encode(strings)]}, file, separators=(",", ":"))
            file.write("\n")
        print(f"{form} written", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsmoe", default=os.path.join(ROOT, "build", "dsmoe"))
    parser.add_argument("--strings", type=int, default=100_000)
    parser.add_argument("--contexts", type=int, default=len(CONTEXTS))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("forms", nargs="*", choices=[[], *FORMS], default=[])
    args = parser.parse_args()
    if args.write:
        return write_goldens(args.forms or FORMS)
    sys.exit(1 if sum([compare(args.dsmoe, form, args.strings, args.contexts) for form in args.forms or FORMS]) else 0)


main()
