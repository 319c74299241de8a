#!/usr/bin/env python3
"""Usage: terminal_test.py PATH/TO/dsmoe

Tests that no byte of a file, a name or an argument reaches a terminal as a control sequence.
"""

import json
import os
import pty
import re
import shutil
import struct
import subprocess

from support import DSMOE, TEXT, HabitsTest, main

# Colour, a line that overwrites, a byte that is no UTF-8, C1 in UTF-8, DEL, a mark that changes the writing direction.
CONTROLS = {
    "escape": (b"\x1b[31m", rb"\u001b[31m"),
    "carriage return": (b"\r", rb"\r"),
    "c1": ("\u009b2J".encode(), rb"\u009b2J"),
    "delete": (b"\x7f", rb"\u007f"),
    "direction": ("\u202e".encode(), rb"\u202e"),
}
BROKEN = {"broken": (b"\xff\xfe", rb"\xff\xfe")}


class TerminalTest(HabitsTest):
    def shown(self, *arguments, code=2):
        """What a command writes to both streams; must hold no control character and be UTF-8."""
        done = self.run_dsmoe(*arguments, text=False)
        self.assertEqual(done.returncode, code, done.stderr)
        for stream in (done.stdout, done.stderr):
            text = stream.decode()  # strict
            raw = [character for character in text if character not in "\n\t" and re.match(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", character)]
            self.assertEqual(raw, [], text)
        return done

    def complaint(self, *arguments, code=2):
        lines = [line for line in self.shown(*arguments, code=code).stderr.splitlines() if line.startswith(b"dsmoe: ")]
        self.assertEqual(len(lines), 1, lines)
        return lines[0]

    def run_dsmoe(self, *arguments, **options):
        arguments = [argument if isinstance(argument, bytes) else str(argument) for argument in arguments]
        options = {"capture_output": True, "cwd": self.directory, "timeout": 120} | {"text": True} | options
        return subprocess.run([DSMOE, *arguments], **options)

    def on_terminal(self, stream, *arguments, **variables):
        """Runs a command with a terminal as one of its streams; returns its end and what the terminal was sent."""
        master, slave = pty.openpty()
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: slave}
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables
        done = subprocess.run([DSMOE, *arguments], cwd=self.directory, timeout=120, env=environment, **streams)
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        os.close(master)
        return done, shown

    def test_no_color_leaves_colours_out_of_the_log(self):
        overrides = ["--train.schedule.warmup_steps=0", "--train.steps=1"]
        self.tiny_run("run", *overrides)
        command = ["train", "tiny.yaml", "--run_dir=run", "--data.train=run-data", overrides[0]]
        for steps, variables, is_coloured in ((2, {}, True), (3, {"NO_COLOR": "1"}, False), (4, {"NO_COLOR": ""}, True)):
            _, shown = self.on_terminal("stderr", *command, f"--train.steps={steps}", TERM="xterm", **variables)
            self.assertRegex(shown.decode(), "warning: .*resume: train.steps was")
            self.assertEqual(b"\x1b[" in shown, is_coloured, (variables, shown))

    def test_keys_and_values_of_a_config(self):
        for name, (raw, escaped) in CONTROLS.items():
            quoted = json.dumps(raw.decode()).encode()
            for yaml in (b"model: {%b: 3}\n" % quoted, b"model: {norm: %b}\n" % quoted, b"seed: %b\n" % quoted):
                with self.subTest(name, yaml=yaml):
                    self.write("c.yaml", b"run_dir: r\n" + yaml)
                    self.assertIn(escaped, self.complaint("train", "c.yaml"))
            self.assertIn(escaped, self.complaint("train", "c.yaml", b"--seed=" + raw))
        self.write("c.yaml", b"run_dir: \xff\n")
        self.complaint("train", "c.yaml")

    def test_the_resolved_config_reads_back(self):
        self.write("text.txt", TEXT)
        self.succeeds("tokenize", "--input", "text.txt", "--out", "data", "--threads", 1)
        run = "run " + "".join(raw.decode() for raw, _ in CONTROLS.values())
        self.write("c.yaml", json.dumps({"run_dir": run, "data": {"train": "data"}}))
        printed = self.shown("train", "c.yaml", "--print-config", code=0).stdout
        self.write("printed.yaml", printed)
        self.assertEqual(self.shown("train", "printed.yaml", "--print-config", code=0).stdout, printed)

    def test_file_names_in_messages_and_results(self):
        run = self.tiny_run("run", "--train.steps=1", "--train.schedule.warmup_steps=0")
        for name, (raw, escaped) in (CONTROLS | BROKEN).items():
            with self.subTest(name):
                path = os.fsencode(self.directory) + b"/a" + raw + b"b"
                for command in ("inspect", "generate"):
                    self.assertIn(escaped, self.complaint(command, path))
                shutil.copytree(os.fsencode(run), path)
                self.assertIn(escaped, self.shown("inspect", path, code=0).stdout)
                result = json.loads(self.shown("inspect", path, "--json", code=0).stdout)
                expected = raw.decode(errors="replace")
                self.assertIn(f"a{expected}b", result["checkpoint"])
                # The log: a damaged checkpoint is skipped with a warning.
                for checkpoint in os.listdir(path + b"/checkpoints"):
                    os.truncate(path + b"/checkpoints/" + checkpoint + b"/config.json", 3)
                self.assertIn(escaped, self.shown("inspect", path).stderr)

    def test_names_and_values_of_a_hugging_face_directory(self):
        for name, (raw, escaped) in CONTROLS.items():
            text = raw.decode()
            with self.subTest(name):
                self.llama(config={"hidden_act": text})
                self.assertIn(b"hidden_act", self.complaint("convert", "hf", "ck"))
                self.llama(config={"model_type": text})
                self.assertIn(escaped, self.complaint("convert", "hf", "ck"))
                self.llama(extra={f"a{text}b": [1]})
                self.assertIn(escaped, self.complaint("convert", "hf", "ck"))
                self.llama("named", config={f"new{text}key": 3})
                self.assertIn(escaped, self.shown("convert", "named", f"ck-{name}", code=0).stderr)
        header = b'{"a\xff\x1b[31m": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
        self.llama()
        self.write("hf/model.safetensors", struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
        self.complaint("convert", "hf", "ck")
        self.write("hf/config.json", b'{"model_type": "llama", "\x1b[31m\xff": 3}')
        self.complaint("convert", "hf", "ck")

    def test_keys_of_a_prompts_file(self):
        self.tiny_run("run", "--train.steps=1", "--train.schedule.warmup_steps=0")
        for name, (raw, escaped) in CONTROLS.items():
            self.write("prompts.jsonl", json.dumps({"prompt": "a", raw.decode(): 1}) + "\n")
            done = self.run_dsmoe("generate", "run", "--prompts", "prompts.jsonl", "--threads", 1, text=False)
            self.assertIn(escaped, done.stderr + done.stdout, name)
            self.assertNotIn(raw, done.stderr + done.stdout, name)

    def test_arguments(self):
        for raw, escaped in (CONTROLS | BROKEN).values():
            for arguments in ((raw,), ("train", raw), ("eval", b"--" + raw), ("generate", "x", b"--policy", raw)):
                self.complaint(*arguments)

    def test_json_holds_the_exact_text(self):
        self.tiny_run("run", "--train.steps=1", "--train.schedule.warmup_steps=0")
        done = self.shown("generate", "run", "--prompt", "a", "--max-tokens", 40, "--temperature", 3, "--threads", 1, "--json", code=0)
        completion = json.loads(done.stdout)["completions"][0]
        # A byte model of high temperature writes every kind of byte.
        self.assertRegex(completion["text"], r"[\x00-\x1f\x7f]")
        self.assertGreater(len(completion["text"]), 20)

    def test_generated_text_is_whole_in_a_pipe_and_escaped_on_a_terminal(self):
        self.tiny_run("run", "--train.steps=1", "--train.schedule.warmup_steps=0")
        command = ["generate", "run", "--prompt", "a\x1b[31m\tb", "--max-tokens", "3", "--threads", "1"]
        for more in ([], ["--n", "2"]):
            piped = self.run_dsmoe(*command, *more, text=False)
            self.assertIn(b"a\x1b[31m\tb", piped.stdout)
            done, shown = self.on_terminal("stdout", *command, *more)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"a\\u001b[31m\tb", shown)
            self.assertNotIn(b"\x1b", shown)
        self.write("prompts.txt", "a\x1b[31m\n")
        piped = self.run_dsmoe("generate", "run", "--prompts", "prompts.txt", "--max-tokens", 2, "--threads", 1, text=False)
        self.assertIn(b"a\x1b[31m", piped.stdout)

    def test_ranks_of_launch_pass_escaped_lines_on(self):
        self.write("c.yaml", 'run_dir: r\nmodel: {"\\x1b[31m": 3}\n')
        done = self.run_dsmoe("launch", "-n", 2, "--", "train", "c.yaml", text=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(rb"\u001b[31m", done.stderr)
        self.assertNotIn(b"\x1b", done.stderr)


if __name__ == "__main__":
    main()
