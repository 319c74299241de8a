#!/usr/bin/env python3
"""Tests help: every option says its default, lines fit the width, names people bring are understood.

Usage: help_test.py PATH/TO/dsmoe
"""

import os
import pty
import re
import subprocess

from support import DSMOE, HabitsTest, main


class HelpTest(HabitsTest):
    def commands(self):
        return re.findall(r"^  (\w+) +\S", self.succeeds("--help").stdout.split("Examples:")[0].split("Data:")[1], re.M)

    def options(self, command):
        """Of a command's help: each option's names with type, and its text in one line."""
        text = self.succeeds(command, "--help", env=os.environ | {"COLUMNS": "120"}).stdout
        found = []
        for line in text.splitlines():
            if match := re.match(r"  (-\S.*?)(?:  +(\S.*))?$", line):
                found.append([match[1], match[2] or ""])
            elif found and line.startswith("      "):
                found[-1][1] += " " + line.strip()
        return [(name, text.strip()) for name, text in found]

    def test_every_option_with_a_value_says_its_type_and_its_default(self):
        names = self.commands()
        self.assertLessEqual({"train", "eval", "generate", "plan", "help", "completion"}, {*names})
        for command in names:
            for name, text in self.options(command):
                with self.subTest(command=command, option=name):
                    self.assertRegex(text, r"^[a-z]")
                    self.assertNotRegex(name, "INT|FLOAT|UINT")
                    if " " in name.replace(", ", ","):
                        self.assertRegex(text, r"\((default|required)")
                    else:
                        self.assertNotIn("(default", text)
        self.assertIn(("-n, --max-tokens N", "generate at most N tokens (default 128)"), self.options("generate"))

    def test_lines_fit_the_width(self):
        for width, environment in ((100, {}), (80, {"COLUMNS": "80"}), (60, {"COLUMNS": "60"})):
            base = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
            for command in self.commands():
                text = self.succeeds(command, "--help", env=base | environment).stdout
                longest = max((line for line in text.splitlines() if "dsmoe " not in line), key=len)
                # One word may be longer than a line.
                self.assertTrue(len(longest) <= width or " " not in longest.strip(), f"{width}: {longest}")
        text = self.succeeds("generate", "--help", env=base).stdout
        self.assertGreater(max(map(len, text.splitlines())), 90)

    def test_help_on_a_terminal_has_its_width(self):
        main_end, terminal = pty.openpty()
        os.set_inheritable(terminal, True)
        subprocess.run(["stty", "cols", "72", "rows", "40"], stdin=terminal, check=True)
        base = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        subprocess.run([DSMOE, "inspect", "--help"], stdout=terminal, env=base, check=True)
        os.close(terminal)
        text = b""
        try:
            while piece := os.read(main_end, 1 << 16):
                text += piece
        except OSError:
            pass
        os.close(main_end)
        self.assertNotIn(b"\x1b", text)
        lengths = [len(line) for line in text.decode().splitlines() if "dsmoe " not in line]
        self.assertTrue(60 < max(lengths) <= 72, lengths)

    def test_help_names_the_program_and_not_its_path(self):
        link = self.directory / "odd\x1b[31mname"
        link.symlink_to(DSMOE)
        done = subprocess.run([link, "--help"], capture_output=True, text=True, check=True)
        self.assertNotIn("\x1b", done.stdout)
        self.assertIn("Usage: dsmoe COMMAND", done.stdout)

    def test_forms_of_asking_for_help(self):
        expected = self.succeeds("eval", "--help").stdout
        for line in (["help", "eval"], ["eval", "-h"], ["eval", "x", "--window", "wide", "--help"]):
            self.assertEqual(self.succeeds(*line).stdout, expected)
        self.assertEqual(self.succeeds("help").stdout, self.succeeds("-h").stdout)
        done = self.refused(says=["expected a command, got none; see 'dsmoe --help'"])
        self.assertIn("Examples:", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_underscores_in_option_names_read_as_dashes(self):
        for name in ("--max_tokens", "--max-tokens", "-n"):
            self.refused("generate", "x", name, "0", says=["expected 1 to 1073741824 for --max-tokens, got '0'"])
        self.refused("generate", "x", "-n0", says=["for --max-tokens, got '0'"])
        self.refused("generate", "x", "--max_tokens=0", says=["for --max-tokens, got '0'"])

    def test_export_lists_the_targets_that_exist(self):
        source = (os.path.dirname(__file__) or ".") + "/../../../src/model/io/export_model.cpp"
        with open(source) as file:
            table = file.read().split("export_targets() {")[1].split("return")[0]
        targets = re.findall(r'\{"([a-z0-9-]+)"', table)
        option = [name for name, _ in self.options("export") if name.startswith("--to")][0]
        self.assertEqual(sorted(option.split()[1].split("|")), sorted(targets))

    def completed(self, *words):
        script = self.write("completion.bash", self.succeeds("completion", "bash").stdout)
        code = f"source {script}; COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; _dsmoe; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=self.directory, check=True).stdout.split()

    def test_completion_of_bash(self):
        self.assertEqual(self.completed("dsmoe", "ev"), ["eval"])
        self.assertEqual(self.completed("dsmoe", "help", "tok"), ["tokenize"])
        self.assertEqual(self.completed("dsmoe", "eval", "x", "--dt"), ["--dtype"])
        self.assertEqual(self.completed("dsmoe", "eval", "x", "--dtype", "b"), ["bfloat16"])
        self.assertIn("completion.bash", self.completed("dsmoe", "eval", "comp"))
        self.assertIn("#compdef dsmoe", self.succeeds("completion", "zsh").stdout)
        self.refused("completion", "fish", says=["expected bash or zsh for SHELL, got 'fish'"])


if __name__ == "__main__":
    main()
