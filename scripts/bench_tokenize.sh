#!/usr/bin/env bash
# Compares speed and memory of `dsmoe tokenize` with SentencePiece's spm_encode (Debian package sentencepiece), one thread
# each, alternating. Usage: scripts/bench_tokenize.sh [CORPUS [ROUNDS]]; the corpus is plain text or gzip.
set -euo pipefail
cd "$(dirname "$0")/.."
corpus=${1:-../shared/data/books-se/train.txt.gz}
rounds=${2:-5}
dsmoe=build/dsmoe

fail() { printf '[bench] %s\n' "$*" >&2; exit 2; }
[ -e "$corpus" ] || fail "no corpus at $corpus; name one"
command -v spm_encode > /dev/null || fail "spm_encode is missing: apt-get install sentencepiece"
[ -x "$dsmoe" ] || fail "$dsmoe is missing: cmake --build --preset release"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $corpus in *.gz) gzip -dc "$corpus" ;; *) cat "$corpus" ;; esac > "$work/once.txt"
for _ in 1 2 3 4 5 6 7 8 9 10; do cat "$work/once.txt"; done > "$work/ten.txt"
"$dsmoe" tokenize --input "$work/once.txt" --tokenizer train:bpe:4096 --out "$work/model" > /dev/null

python3 - "$dsmoe" "$work" "$rounds" << 'PYTHON'
import os, shutil, statistics, subprocess, sys, time

dsmoe, work, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = f"{work}/model/tokenizer.model"

def run(command, stdin=None, stdout=subprocess.DEVNULL):
    start = time.monotonic()
    child = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"[bench] {command[0]} failed")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

def ours(text, threads=1):
    shutil.rmtree(f"{work}/out", ignore_errors=True)
    return run([dsmoe, "tokenize", "--input", text, "--tokenizer", model, "--threads", str(threads),
                "--out", f"{work}/out"])

def theirs(text):
    with open(text) as stdin, open(f"{work}/ids", "w") as stdout:
        return run(["spm_encode", f"--model={model}", "--output_format=id"], stdin, stdout)

pairs = [(theirs(f"{work}/once.txt"), ours(f"{work}/once.txt")) for _ in range(rounds)]
size = os.path.getsize(f"{work}/once.txt")
for name, side in (("spm_encode", 0), ("dsmoe tokenize", 1)):
    wall, cpu = (statistics.median(pair[side][i] for pair in pairs) for i in (0, 1))
    print(f"{name:15} 1 thread: {wall:6.2f} s, {cpu:6.2f} s of CPU, {size / 1e6 / cpu:6.1f} MB per CPU second")
for name, i in (("wall time", 0), ("CPU time", 1)):
    ratios = sorted(pair[0][i] / pair[1][i] for pair in pairs)
    print(f"speed against spm_encode by {name}: median {statistics.median(ratios):.2f}, "
          f"{ratios[0]:.2f} to {ratios[-1]:.2f} over {rounds} pairs")
for name in ("once", "ten"):
    wall, cpu, memory = ours(f"{work}/{name}.txt", threads=2)
    megabytes = os.path.getsize(f"{work}/{name}.txt") / 1e6
    print(f"{megabytes:7.1f} MB of text, 2 threads: {wall:6.2f} s, peak memory {memory:.0f} MiB")
PYTHON
