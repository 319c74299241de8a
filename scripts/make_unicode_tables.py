#!/usr/bin/env python3
"""Writes src/data/unicode_tables.cpp: the character classes and canonical compositions of Hugging Face's tokenizers.

Usage: scripts/make_unicode_tables.py > src/data/unicode_tables.cpp, with scripts/requirements-tokenizers.txt installed.
General categories and scripts are those of the package's Oniguruma (Unicode 16.0, here from unicodedata2 and from the
package). Its normalizer and its Digits use other versions of Unicode, so those are computed with the package.
scripts/compare_tokenizers.py checks the result over all code points.
"""
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn").split()
nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str


def ranges(members):
    result = []
    for c in sorted(members):
        if result and result[-1][1] == c - 1:
            result[-1][1] = c
        else:
            result.append([c, c])
    return result


def table(kind, name, values):
    print(f"\nconst {kind} {name}[] = {{")
    line = "   "
    for value in values:
        if len(line) + len(value) + 2 > 100:
            print(line)
            line = "   "
        line += f" {value},"
    print(line + "\n};")
    print(f"const size_t {name}Size = std::size({name});")


def categories():
    last = None
    for c in range(0x110000):
        category = CATEGORIES.index(unicodedata2.category(chr(c)))
        if category != last:
            yield f"0x{c << 5 | category:x}"
        last = category


def matched(pre_tokenizer):
    """Returns the code points that a pre-tokenizer removes or splits from the letter before them."""
    pieces = pre_tokenizer.pre_tokenize_str("".join("a" + chr(c) for c in CODE_POINTS))
    return {ord(text) for text, _ in pieces if len(text) == 1 and text != "a"}


def combining_class(c):
    """The class that the package sorts by: none for characters newer than its tables."""
    number = unicodedata2.combining(chr(c))
    mark = "\u0334" if number > 1 else "\u0301"  # of class 1, of class 230
    if number == 0:
        return 0
    text = "a" + chr(c) + mark if number > 1 else "a" + mark + chr(c)
    return number if nfd(text) != text else 0


def combining_classes():
    last = 0
    for c in CODE_POINTS:
        number = combining_class(c)
        if number != last:
            yield f"0x{c << 8 | number:x}"
        last = number


def decompositions():
    for c in CODE_POINTS:
        if 0xAC00 <= c <= 0xD7A3 or nfd(chr(c)) == chr(c):
            continue  # syllables of Hangul are computed
        parts = [int(x, 16) for x in unicodedata2.decomposition(chr(c)).split()]
        first, second = parts if len(parts) == 2 else (parts[0], 0)
        composes = second and nfc(nfd(chr(c))) == chr(c) and nfc(chr(first) + chr(second)) == chr(c)
        yield f"{{0x{c:x}, 0x{first:x}, 0x{second:x}, {int(bool(composes))}}}"


def main():
    print("// Made by scripts/make_unicode_tables.py; not to be edited.")
    print(f"// Unicode {unicodedata2.unidata_version} and the tokenizers package pinned in scripts/requirements-tokenizers.txt.")
    print('#include "data/unicode_tables.h"\n\n#include <iterator>\n\nnamespace dsmoe {')
    table("uint32_t", "kGeneralCategories", categories())
    numbers = ranges(matched(pre_tokenizers.Digits(individual_digits=False)))
    table("CodeRange", "kDigits", (f"{{0x{a:x}, 0x{b:x}}}" for a, b in numbers))
    punctuation = ranges(matched(pre_tokenizers.Punctuation(behavior="isolated")))
    table("CodeRange", "kPunctuation", (f"{{0x{a:x}, 0x{b:x}}}" for a, b in punctuation))
    for script in ("Han", "Hiragana", "Katakana", "Hangul"):
        split = pre_tokenizers.Split(Regex(rf"\p{{{script}}}"), "isolated")
        members = ranges(matched(split))
        table("CodeRange", f"k{script}", (f"{{0x{a:x}, 0x{b:x}}}" for a, b in members))
    table("uint32_t", "kCombiningClasses", combining_classes())
    table("Decomposition", "kDecompositions", decompositions())
    print("\n}  // namespace dsmoe")


main()
