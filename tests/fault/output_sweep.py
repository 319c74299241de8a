#!/usr/bin/env python3
"""Faults at every write of every command that makes a file or prints a result.

Usage: output_sweep.py PATH/TO/dsmoe [PATH/TO/failing_calls.so] [--every N] [--only COMMAND] [--table FILE]

For each command: a full disk at each call that makes or changes a file (with the preloaded library), a real full disk (a tmpfs of a
few KiB), a read-only target, a missing directory, a target that exists (file, directory, --force), names like OUT.tmp that
are a person's, two processes with one target, standard output full, closed by its reader, or not open at all. Each must end with an
exit code that is not 0 and one line, and leave what was there as it was and nothing unfinished. Prints a Markdown table; exits
with 1 if a check failed. What the machine does not allow (mounts need root) is listed as skipped.
"""

import argparse
import errno
import filecmp
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("dsmoe")
parser.add_argument("library", nargs="?", help="path of failing_calls.so (default: no call fails)")
parser.add_argument("--every", type=int, default=1, help="try every N-th of the failing calls (default 1)")
parser.add_argument("--only", help="try only commands with this text in their name (default: all)")
parser.add_argument("--table", type=pathlib.Path, help="write the table to this file (default: standard output)")
OPTIONS = parser.parse_args()

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration/habits"))
sys.argv = [sys.argv[0], OPTIONS.dsmoe]
import support  # noqa: E402  (it takes the program's path from the arguments)

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "ASAN_OPTIONS": "verify_asan_link_order=0"}
FULL = os.strerror(errno.ENOSPC)
WARM_UP = "--train.schedule.warmup_steps=1"
OUT = "OUT"  # in a command: the target

DENSE_ATTENTION = """\
  attention: {kind: dense, head_dim: 16, n_heads: 4, n_kv_heads: 4, qk_norm: true}
  ffn: {kind: moe, activation: swiglu}
  moe: {n_experts: 4, d_expert: 32, router: {kind: linear}}
"""
JETMOE = """\
  attention: {kind: moa, head_dim: 16}
  moa: {n_experts: 4, heads_per_expert: 2, router: {kind: linear}}
  ffn: {kind: moe, activation: swiglu}
  moe: {n_experts: 4, d_expert: 32, router: {kind: linear}}
"""


class Command:
    """A command line; `makes`: content of OUT afterwards, None if only standard output has the result."""

    def __init__(self, name, *arguments, makes=None, prints=True):
        self.name, self.arguments, self.makes, self.prints = name, [str(a) for a in arguments], makes, prints

    def line(self, target):
        return [support.DSMOE, *(a.replace(OUT, str(target)) for a in self.arguments)]


MODEL = ["run", "--threads", 1]
COMMANDS = [
    Command("tokenize", "tokenize", "--input", "text.txt", "--out", OUT, "--threads", 1, makes="directory"),
    Command("tokenize, BPE", "tokenize", "--input", "text.txt", "--tokenizer", "train:bpe:270", "--out", OUT, "--threads", 1,
            makes="directory"),
    Command("convert", "convert", "hf", OUT, "--threads", 1, makes="directory"),
    Command("convert --partition", "convert", "hf", OUT, "--partition", "n_experts=4", "--threads", 1, makes="directory"),
    Command("export hf-llama", "export", "checkpoint", OUT, "--to", "hf-llama", "--threads", 1, makes="directory"),
    Command("export hf-olmoe", "export", "olmoe", OUT, "--to", "hf-olmoe", "--policy", "top_k=2", "--threads", 1, makes="directory"),
    Command("export hf-jetmoe", "export", "jetmoe", OUT, "--to", "hf-jetmoe", "--policy", "all", "--threads", 1, makes="directory"),
    Command("export gguf", "export", "olmoe", OUT, "--to", "gguf", "--policy", "top_k=2", "--threads", 1, makes="file"),
    Command("export --logits", "export", "checkpoint", "scratch", "--to", "hf-llama", "--logits", OUT, "--threads", 1, makes="file"),
    Command("report", "report", "run", "--out", OUT, makes="file"),
    Command("curve --plot", "curve", *MODEL, "--data", "short.txt", "--policies", "all", "top_k=1", "--plot", OUT, makes="file"),
    Command("budget --out", "budget", *MODEL, "--data", "short.txt", "--active-parameters", 30000, "--candidates", "top_k=1",
            "--tokens", 64, "--out", OUT, makes="file"),
    Command("eval --out", "eval", *MODEL, "--choices", "items.jsonl", "--out", OUT, makes="file"),
    Command("train --json", "train", "tiny.yaml", f"--run_dir={OUT}", "--train.steps=2", WARM_UP, "--json", makes="run"),
    Command("launch", "launch", "-n", 1, "--", "train", "tiny.yaml", f"--run_dir={OUT}", "--train.steps=2", WARM_UP, "--json", makes="run"),
    Command("eval", "eval", *MODEL, "--data", "short.txt"),
    Command("eval --json", "eval", *MODEL, "--data", "short.txt", "--json"),
    Command("curve --json", "curve", *MODEL, "--data", "short.txt", "--policies", "all", "--json"),
    Command("generate", "generate", *MODEL, "--prompt", "the king", "--max-tokens", 4),
    Command("generate --json", "generate", *MODEL, "--prompt", "the king", "--max-tokens", 4, "--json"),
    Command("generate --n", "generate", *MODEL, "--prompt", "the king", "--max-tokens", 4, "--n", 2),
    Command("generate --prompts", "generate", *MODEL, "--prompts", "prompts.txt", "--max-tokens", 4),
    Command("generate --json-lines", "generate", *MODEL, "--prompts", "prompts.txt", "--max-tokens", 4, "--json-lines"),
    Command("check --json", "check", *MODEL, "--json"),
    Command("inspect --json", "inspect", "run", "--json"),
    Command("plan", "plan", "tiny.yaml"),
    Command("plan --json", "plan", "tiny.yaml", "--json"),
    Command("bench --json", "bench", "--config", "run", "--prompt", 8, "--generate", 8, "--repetitions", 1, "--threads", 1, "--json"),
    Command("train --print-config", "train", "tiny.yaml", "--print-config"),
    Command("train --list-keys", "train", "--list-keys"),
    Command("train --help", "train", "--help"),
    Command("--version", "--version"),
]


class Sweep:
    def __init__(self, directory):
        self.directory = directory
        self.rows, self.failures, self.skipped = [], [], []
        self.n_calls = 0  # that were made to fail
        self.can_mount = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", directory], capture_output=True).returncode == 0
        if not self.can_mount:
            self.skipped.append("full tmpfs and read-only mount: this user may not mount")
        if OPTIONS.library is None:
            self.skipped.append("a failure at each call: no library given")

    # Inputs of the commands.

    def prepare(self):
        write = lambda name, text: (self.directory / name).write_text(text)
        write("text.txt", support.TEXT)
        write("short.txt", support.TEXT[:600])
        write("prompts.txt", "the king\nno one\n")
        write("items.jsonl", '{"context": "the king", "choices": [" said", " heard"], "answer": 0}\n' * 3)
        begin = support.CONFIG.index("  attention:")
        end = support.CONFIG.index("data:")
        for name, model in (("tiny", support.CONFIG[begin:end]), ("olmoe", DENSE_ATTENTION), ("jetmoe", JETMOE)):
            write(f"{name}.yaml", support.CONFIG[:begin] + model + support.CONFIG[end:])
        support.write_llama(self.directory / "hf")
        self.do("tokenize", "--input", "text.txt", "--out", "data", "--threads", 1)
        self.do("train", "tiny.yaml", "--train.steps=4", WARM_UP)
        for name in ("olmoe", "jetmoe"):
            self.do("train", f"{name}.yaml", f"--run_dir={name}", "--train.steps=2", WARM_UP)
        self.do("convert", "hf", "checkpoint", "--threads", 1)

    def do(self, *arguments):
        done = subprocess.run([support.DSMOE, *map(str, arguments)], cwd=self.directory, env=ENVIRONMENT, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"output_sweep: {' '.join(map(str, arguments))}: {done.stderr}")

    # One trial.

    def fresh(self, name="target"):
        """An empty directory for one target; `export --logits` writes the model to scratch."""
        shutil.rmtree(self.directory / "scratch", ignore_errors=True)
        place = self.directory / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def start(self, line, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(line, cwd=self.directory, env=options.pop("env", ENVIRONMENT), text=True, **options)

    def run(self, line, **options):
        process = self.start(line, **options)
        out, error = process.communicate(timeout=120)
        return process.returncode, out or "", error or ""

    def expect(self, condition, command, fault, text):
        if not condition:
            self.failures.append(f"{command.name}, {fault}: {text}")
            print(f"FAILED: {self.failures[-1]}", flush=True)

    def judge(self, command, fault, code, error, codes=(1, 2)):
        """Checks exit code and message; returns the message without names of this machine."""
        lines = [line for line in error.splitlines() if line.startswith("dsmoe: ")]
        self.expect(code in codes, command, fault, f"ended with {code}: {error[-300:]}")
        self.expect(len(lines) == 1, command, fault, f"expected one line, got {lines}: {error[-300:]}")
        return lines[-1].removeprefix("dsmoe: ").replace(str(self.directory) + "/", "") if lines else error[-80:]

    def row(self, command, fault, code, message, left):
        self.rows.append((command.name, fault, str(code), message, left))

    def left_in(self, command, fault, place, whole, allowed=()):
        """Returns the content of the target: nothing or the whole output, beside `allowed` names."""
        names = sorted(path.name for path in place.iterdir() if path.name not in allowed)
        self.expect(names in ([], ["out"]), command, fault, f"left {names}")
        if names != ["out"]:
            return "nothing"
        self.expect(same(place / "out", whole), command, fault, "left a part of an output")
        return "the whole output"

    # The faults.

    def standard_output(self, command):
        for fault in ("stdout full", "stdout closed by its reader", "stdout not open"):
            place = self.fresh()
            line = command.line("target/out")
            options = {}
            if fault == "stdout full":
                options["stdout"] = open("/dev/full", "w")
            elif fault == "stdout not open":
                line = ["sh", "-c", 'exec "$@" >&-', "sh", *line]
            else:
                reader, writer = os.pipe()
                os.close(reader)
                options["stdout"] = os.fdopen(writer, "w")
            code, _, error = self.run(line, **options)
            if "stdout" in options:
                options["stdout"].close()
            message = self.judge(command, fault, code, error, codes=(1,))
            self.expect("standard output: cannot write" in message, command, fault, message)
            left = ""
            if command.makes:
                self.expect((place / "out").exists(), command, fault, "the output is missing, though only printing failed")
                self.expect(command.makes == "run" or same(place / "out", self.whole), command, fault, "the output is not whole")
                left = "the whole output"
            self.row(command, fault, code, message, left)

    def failing_calls(self, command, force):
        """A full disk at each call in turn; with `force` over an older output."""
        place = self.fresh()
        log = self.directory / "calls.log"
        arguments = ["--force"] if force else []
        environment = ENVIRONMENT | {"LD_PRELOAD": str(pathlib.Path(OPTIONS.library).resolve()), "DSMOE_FAULT_LOG": str(log),
                                     "DSMOE_FAULT_ERROR": str(errno.ENOSPC)}

        def attempt(at):
            self.fresh()
            log.unlink(missing_ok=True)
            if force:
                self.copy_old(command, place / "out")
            code, _, error = self.run(command.line("target/out") + arguments, env=environment | {"DSMOE_FAULT_AT": str(at)})
            return code, error, log.read_text().splitlines()

        code, error, calls = attempt(0)
        self.expect(code == 0, command, "no fault", error[-300:])
        codes, states, messages = set(), set(), {}
        tried = range(1, len(calls) + 1, OPTIONS.every)
        for at in tried:
            fault = f"{FULL} at call {at}, {calls[at - 1]}" + (", --force" if force else "")
            code, error, _ = attempt(at)
            # A failed close of a directory or of an empty file loses nothing.
            if code != 0 or calls[at - 1] != "close":
                message = self.judge(command, fault, code, error, codes=(1,))
                messages.setdefault(message.split(": ", 1)[-1], message)
            codes.add(code)
            if command.makes != "file" and command.makes != "directory":
                continue
            if force and (place / "out").exists() and same(place / "out", self.old):
                states.add("the old output")
                self.expect(os.listdir(place) == ["out"], command, fault, f"left {os.listdir(place)}")
            else:
                self.expect(not force or (place / "out").exists(), command, fault, "the old output is gone")
                states.add(self.left_in(command, fault, place, self.whole))
        self.n_calls += len(tried)
        summary = f"{FULL} at each call" if OPTIONS.every == 1 else f"{FULL} at every {OPTIONS.every}th call"
        self.row(command, summary + (", --force over an old one" if force else ""), "/".join(map(str, sorted(codes))),
                 next(iter(messages.values()), ""), " or ".join(sorted(states)))

    def copy_old(self, command, path):
        if self.old.is_dir():
            shutil.copytree(self.old, path)
        else:
            shutil.copy(self.old, path)

    def mounted(self, command, fault, mount):
        """Runs with the target directory mounted by a shell line; returns code, message, and names in it."""
        self.fresh()
        script = mount + '; "$@"; code=$?; ls -A -I fill target > listing; exit $code'
        code, _, error = self.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *command.line("target/out")])
        return code, self.judge(command, fault, code, error, codes=(1,)), (self.directory / "listing").read_text().split()

    def disks(self, command):
        if self.can_mount:
            # The run directory of training holds its lock and the files written before.
            for fault, mount in (("a full tmpfs", "mount -t tmpfs -o size=4k,mode=755 none target; cat /dev/zero > target/fill 2> /dev/null"),
                                 ("read-only mount", "mount --bind target target; mount -o remount,bind,ro target")):
                code, message, names = self.mounted(command, fault, mount)
                self.expect(names == [] or (command.makes == "run" and names == ["out"]), command, fault, f"left {names}")
                self.row(command, fault, code, message, ", ".join(names) or "nothing")
        fault = "file size limit"
        place = self.fresh()
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        code, _, error = self.run(command.line("target/out"), preexec_fn=limit)
        message = self.judge(command, fault, code, error, codes=(1,))
        names = os.listdir(place)
        self.expect(names == [] or command.makes == "run", command, fault, f"left {names}")
        self.row(command, fault, code, message, "nothing" if not names else "the run directory")

    def paths(self, command):
        place = self.fresh()
        (place / "plain").write_text("mine")
        fault = "a plain file where a directory is named"
        code, _, error = self.run(command.line("target/plain/out"))
        message = self.judge(command, fault, code, error)
        self.expect(os.listdir(place) == ["plain"] and (place / "plain").read_text() == "mine", command, fault, "the file changed")
        self.row(command, fault, code, message, "the file")
        if command.makes == "run":
            return
        for fault, make in (("the target is a file", lambda path: path.write_text("mine")),
                            ("the target is a directory", lambda path: (path.mkdir(), (path / "notes").write_text("mine")))):
            for force in ([], ["--force"]):
                if force and command.makes == "file" and fault == "the target is a file":
                    continue
                place = self.fresh()
                make(place / "out")
                code, _, error = self.run(command.line("target/out") + force)
                message = self.judge(command, fault, code, error, codes=(2,))
                kept = place / "out" if (place / "out").is_file() else place / "out/notes"
                self.expect(kept.read_text() == "mine" and os.listdir(place) == ["out"], command, fault, "what was there changed")
                self.row(command, " ".join([fault, *force]), code, message, "what was there")

    def neighbours(self, command):
        fault = "OUT.tmp and such are a person's"
        place = self.fresh()
        names = ["out.tmp", "out.tmp-convert", ".out.tmp", ".out.tmp-1-00000000"]
        for name in names:
            (place / name).mkdir()
            (place / name / "notes").write_text("mine")
        code, _, error = self.run(command.line("target/out"))
        self.expect(code == 0, command, fault, error[-300:])
        self.expect(all((place / name / "notes").read_text() == "mine" for name in names), command, fault, "a directory changed")
        self.expect(sorted(os.listdir(place)) == sorted([*names, "out"]), command, fault, f"left {sorted(os.listdir(place))}")
        self.row(command, fault, code, "", "all of them, and the output")

    def race(self, command):
        """Two processes in any order make one whole output, and each exit code is true."""
        fault = "two processes with one target"
        place = self.fresh()
        both = [self.start(command.line("target/out")) for _ in range(2)]
        ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
        codes = sorted(code for _, code in ends)
        message = ""
        if codes[0] == 0 and codes[1] != 0:
            error, code = max(ends, key=lambda end: end[1])
            message = self.judge(command, fault, code, error)
        self.expect(codes in ([0, 1], [0, 2]) or (command.makes == "run" and codes == [0, 0]), command, fault, f"ended with {codes}")
        left = "the run directory"
        if command.makes != "run":
            left = self.left_in(command, fault, place, self.whole)
            self.expect(left == "the whole output", command, fault, "no output")
        self.row(command, fault, "/".join(map(str, codes)), message, left)

    def sweep(self, command):
        self.whole = self.directory / "whole"
        self.old = self.directory / "old"
        for path in (self.whole, self.old):
            remove(path)
        if command.makes in ("file", "directory"):
            self.fresh()
            code, _, error = self.run(command.line("whole"))
            self.expect(code == 0, command, "no fault", error[-300:])
            # An older output differs from the new one by one more byte in one of its files.
            self.run(["cp", "-r", "whole", "old"])
            changed = self.old if self.old.is_file() else next(path for path in sorted(self.old.iterdir()) if path.name != "dataset.json")
            with open(changed, "ab") as file:
                file.write(b"\n")
        self.standard_output(command)
        if command.makes is None:
            return
        if OPTIONS.library is not None and command.makes != "run":
            self.failing_calls(command, force=False)
            self.failing_calls(command, force=True)
        self.disks(command)
        self.paths(command)
        if command.name != "export --logits":  # both processes make `scratch` too
            self.neighbours(command)
            self.race(command)

    def table(self):
        """Commands that ended alike share a row."""
        groups = {}
        for command, *cells in self.rows:
            cells[2] = re.sub(r"(target/)?\bout(/[\w.-]+)?:", lambda name: "OUT/FILE:" if name[2] else "OUT:", cells[2])
            groups.setdefault(tuple(cells), []).append(command)
        heads = ["fault", "exit code", "message", "left at the target", "commands"]
        lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
        for cells, commands in sorted(groups.items(), key=lambda group: group[0]):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, ", ".join(commands)]) + " |")
        lines += [f"\nSkipped: {text}" for text in self.skipped]
        return "\n".join(lines) + "\n"


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def same(path, other):
    """Equal files, or directories of equal files."""
    if path.is_dir() != other.is_dir():
        return False
    if path.is_file():
        return filecmp.cmp(path, other, shallow=False)
    names = sorted(os.listdir(path))
    return names == sorted(os.listdir(other)) and not any(filecmp.cmpfiles(path, other, names, shallow=False)[1:])


def main():
    with tempfile.TemporaryDirectory(prefix="dsmoe-sweep-") as directory:
        sweep = Sweep(pathlib.Path(directory))
        sweep.prepare()
        for command in COMMANDS:
            if OPTIONS.only is None or OPTIONS.only in command.name:
                sweep.sweep(command)
                print(f"output_sweep: {command.name}", file=sys.stderr)
    if OPTIONS.table is None:
        print(sweep.table())
    else:
        OPTIONS.table.write_text(sweep.table())
    print(f"output_sweep: {len(sweep.rows)} trials and {sweep.n_calls} failing calls, {len(sweep.failures)} failures, {len(sweep.skipped)} skipped")
    sys.exit(1 if sweep.failures else 0)


if __name__ == "__main__":
    main()
