"""How the program starts: help without LibTorch, one copy of what program and commands share, no second start.

Nothing is timed: the dynamic linker's own log (LD_DEBUG) says what was loaded, bound and started.
"""

import os
import pathlib
import re
import shutil
import subprocess
import unittest

from support import DSMOE, HabitsTest, main

COMMANDS = ["tokenize", "train", "eval", "check", "curve", "recommend", "budget", "generate", "convert", "inspect", "bench", "plan", "export",
            "report", "launch"]
PLAN = ["plan", "tiny.yaml", "--model.vocab_size=257"]


def symbols_of(*arguments):
    """Names of the functions that `nm` finds in a file."""
    lines = subprocess.run(["nm", *map(str, arguments)], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[-1] for line in lines if re.search(r" T _ZN?K?\w*5dsmoe", line)}


class StartTest(HabitsTest):
    def linker_log(self, what, *arguments, code=0):
        """Runs the program; returns what the dynamic linker says of `what` (files, bindings)."""
        log = self.directory / "linker"
        for old in self.directory.glob("linker.*"):
            old.unlink()
        done = self.run_dsmoe(*arguments, env=os.environ | {"LD_DEBUG": what, "LD_DEBUG_OUTPUT": str(log)})
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stderr}")
        return "".join(path.read_text() for path in self.directory.glob("linker.*"))

    def setUp(self):
        super().setUp()
        self.write("tiny.yaml", "model: {max_seq_len: 8}\n")

    def test_help_version_and_refused_lines_load_no_libtorch(self):
        lines = [(["--help"], 0), (["--version"], 0), ([], 2), (["walk"], 2), (["eval", "run", "--wide"], 2)]
        lines += [([command, "--help"], 0) for command in COMMANDS]
        for arguments, code in lines:
            with self.subTest(arguments=arguments):
                loaded = self.linker_log("files", *arguments, code=code)
                self.assertIn("initialize program", loaded)
                for name in ("libtorch", "libc10", "libgomp", "dsmoe_commands"):
                    self.assertNotIn(name, loaded)
        loaded = self.linker_log("files", *PLAN)
        for name in ("libtorch_cpu.so", "libc10.so", "libgomp.so", "dsmoe_commands.so"):
            self.assertIn(name, loaded)

    def test_a_command_starts_the_program_once(self):
        self.assertEqual(self.linker_log("files", *PLAN).count("initialize program"), 1)

    def test_openmp_waits_passively_unless_the_environment_says_otherwise(self):
        base = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")):
            done = self.succeeds(*PLAN, env=base | {"OMP_DISPLAY_ENV": "true"} | given)
            self.assertIn(f"OMP_WAIT_POLICY = '{expected}'", done.stderr)

    def test_program_and_commands_share_one_copy_of_common(self):
        build = pathlib.Path(DSMOE).parent
        common = symbols_of("--defined-only", build / "src/common/libdsmoe_common.a")
        self.assertLessEqual({"_ZN5dsmoe14stop_requestedEv", "_ZN5dsmoe15standard_outputEv", "_ZN5dsmoe9setup_logEv"}, common)
        self.assertLessEqual(common, symbols_of("-D", "--defined-only", DSMOE))
        binding = re.compile(r"binding file \S*/dsmoe_commands\.so \[0\] to (\S+) \[0\]: normal symbol `(\w+)'")
        targets = {}
        for target, symbol in binding.findall(self.linker_log("bindings", *PLAN)):
            targets.setdefault(symbol, set()).add(os.path.basename(target))
        bound = common & targets.keys()
        self.assertGreater(len(bound), 50)
        self.assertEqual({symbol: targets[symbol] for symbol in bound if targets[symbol] != {"dsmoe"}}, {})

    def test_a_program_without_its_commands_gives_help_and_names_the_missing_file(self):
        alone = self.directory / "alone/dsmoe"
        alone.parent.mkdir()
        shutil.copy2(DSMOE, alone)
        self.assertEqual(subprocess.run([alone, "eval", "--help"], capture_output=True).returncode, 0)
        done = subprocess.run([alone, *PLAN], capture_output=True, text=True, cwd=self.directory)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^dsmoe: '.*/alone/dsmoe_commands\.so' cannot be loaded: .*; build or install dsmoe again\n$")

    @unittest.skipUnless(shutil.which("cc"), "no C compiler")
    def test_commands_of_another_build_are_refused(self):
        program = self.directory / "other/dsmoe"
        program.parent.mkdir()
        shutil.copy2(DSMOE, program)
        version = self.succeeds("--version").stdout.strip()
        for other, layout in (("0.0.0", 0), (version, 1)):
            self.write("other.c", f'struct {{ const char* version; unsigned long layout; }} dsmoe_run_functions = {{"{other}", {layout}}};')
            subprocess.run(["cc", "-shared", "-fPIC", "-o", "other/dsmoe_commands.so", "other.c"], cwd=self.directory, check=True)
            done = subprocess.run([program, *PLAN], capture_output=True, text=True, cwd=self.directory)
            self.assertEqual(done.returncode, 1)
            self.assertIn("it is of another build; build or install dsmoe again", done.stderr)


if __name__ == "__main__":
    main()
