#!/usr/bin/env python3
"""Tests ownership of files: the files that a command makes, the files that it keeps unchanged, and its report of failed writes.

The sweep over all commands and faults is tests/fault/output_sweep.py. Usage: files_test.py PATH/TO/dsmoe
"""

import json
import os
import resource
import signal
import subprocess
import time

from support import CONFIG, DSMOE, TEXT, HabitsTest, main

WARM_UP = "--train.schedule.warmup_steps=1"  # of runs of a few steps


class FilesTest(HabitsTest):
    def names(self, *ignored):
        return sorted(path.name for path in self.directory.iterdir() if path.name not in ignored)

    def content(self, name):
        """Every file below a name with its bytes."""
        top = self.directory / name
        paths = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in paths}

    # User files with names like those of temporaries.

    def test_directories_named_like_temporaries_stay(self):
        self.write("text.txt", "hello")
        self.llama()
        mine = [f"{name}{ending}" for name in ("shards", "checkpoint", "out") for ending in (".tmp", ".tmp-convert")]
        for name in mine:
            self.write(f"{name}/notes", "mine")
        self.succeeds("tokenize", "--input", "text.txt", "--out", "shards", "--threads", 1)
        self.succeeds("convert", "hf", "checkpoint", "--threads", 1)
        self.succeeds("export", "checkpoint", "out", "--to", "hf-llama", "--threads", 1)
        for name in mine:
            self.assertEqual((self.directory / name / "notes").read_text(), "mine")
        self.assertEqual(self.names(*mine), ["checkpoint", "hf", "out", "shards", "text.txt"])

    def test_files_of_a_run_directory_that_are_no_run_s_stay(self):
        self.write("text.txt", TEXT)
        self.succeeds("tokenize", "--input", "text.txt", "--out", "data", "--threads", 1)
        own = self.write("experiment/config.yaml", "# my notes\n" + CONFIG.replace("run_dir: run", "run_dir: experiment"))
        text = own.read_text()
        self.refused("train", "experiment/config.yaml", says=["experiment", "'config.yaml'", "run_dir"])
        self.assertEqual(own.read_text(), text)
        # A run's own config is rewritten when the run goes on.
        self.succeeds("train", "experiment/config.yaml", "--run_dir=run", WARM_UP, "--train.steps=2")
        self.succeeds("train", "run/config.yaml", WARM_UP, "--train.steps=3")

    def test_a_run_directory_keeps_what_is_not_the_run_s(self):
        run = self.tiny_run("run", WARM_UP, "--train.steps=2")
        mine = ["latest.tmp", ".notes", "checkpoints/.tmp-notes", "checkpoints/latest.tmp"]
        for name in mine:
            self.write(f"run/{name}", "mine")
        self.write("run/checkpoints/.tmp-step-00000009/half", "of a process that died")
        self.write("run/.latest.tmp-12-0123abcd", "of a process that died")
        self.succeeds("train", "tiny.yaml", "--data.train=run-data", WARM_UP, "--train.steps=4")
        for name in mine:
            self.assertEqual((run / name).read_text(), "mine")
        self.assertFalse((run / "checkpoints/.tmp-step-00000009").exists())
        self.assertFalse((run / ".latest.tmp-12-0123abcd").exists())

    # Outputs that exist.

    def outputs(self):
        """Commands that make `out`, each with the name of a file in it ('' for a file)."""
        self.tiny_run("run", WARM_UP, "--train.steps=2")
        self.llama()
        self.succeeds("convert", "hf", "checkpoint", "--threads", 1)
        self.write("short.txt", TEXT[:600])
        self.write("items.jsonl", '{"context": "the king", "choices": [" said", " heard"], "answer": 0}\n')
        model = ["run", "--threads", 1]
        return {
            "tokenize": (["tokenize", "--input", "short.txt", "--out", "out", "--threads", 1], "dataset.json"),
            "convert": (["convert", "hf", "out", "--threads", 1], "manifest.json"),
            "export": (["export", "checkpoint", "out", "--to", "hf-llama", "--threads", 1], "config.json"),
            "report": (["report", "run", "--out", "out"], ""),
            "eval": (["eval", *model, "--choices", "items.jsonl", "--out", "out"], ""),
            "curve": (["curve", *model, "--data", "short.txt", "--policies", "all", "--plot", "out"], ""),
            "budget": (["budget", *model, "--data", "short.txt", "--active-parameters", 30000, "--candidates", "top_k=1",
                        "--tokens", 64, "--out", "out"], ""),
        }

    def test_an_existing_output_is_replaced_only_with_force(self):
        for name, (command, file) in self.outputs().items():
            with self.subTest(command=name):
                self.succeeds(*command)
                first = self.content("out")
                self.assertTrue(not file or f"out/{file}" in first)
                refusal = self.refused(*command, says=["out: expected a new", "exists", "--force"])
                self.assertEqual(refusal.stdout, "")
                self.assertEqual(self.content("out"), first)
                # An interrupted replacement keeps the old output; the next one replaces it.
                limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
                self.refused(*command, "--force", says=["out", "File too large"], code=1, preexec_fn=limited)
                self.assertEqual(self.content("out"), first)
                self.succeeds(*command, "--force")
                self.assertEqual(sorted(self.content("out")), sorted(first))
                self.assertEqual([path for path in self.names() if "out" in path], ["out"])
                self.succeeds_removing("out")

    def succeeds_removing(self, name):
        subprocess.run(["rm", "-r", self.directory / name], check=True)

    def test_force_replaces_an_earlier_output_and_no_other_directory(self):
        for name, (command, file) in self.outputs().items():
            with self.subTest(command=name):
                self.write("out/notes", "mine")
                self.refused(*command, "--force", says=["out"])
                self.write("out/deep/er/notes", "mine")
                self.write(f"out/{file or 'x'}", "{}")
                self.refused(*command, "--force", says=["out"])
                self.assertEqual((self.directory / "out/deep/er/notes").read_text(), "mine")
                self.succeeds_removing("out")

    def held_in_its_work(self):
        """`tokenize --out shards`, stopped (SIGSTOP) after it began its output, of 700 files."""
        self.write("text.txt", TEXT)
        process = subprocess.Popen([DSMOE, "tokenize", "--input", "text.txt", "--out", "shards", "--threads", "1", "--shard-tokens", "30"],
                                   cwd=self.directory, stderr=subprocess.PIPE, text=True)
        while not [name for name in self.names() if name.startswith(".shards.tmp-")]:
            self.assertIsNone(process.poll())
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        return process

    def test_an_interrupted_command_removes_what_it_had_not_finished(self):
        process = self.held_in_its_work()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        error = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 75, error)
        self.assertIn("dsmoe: stopped as asked", error)
        self.assertEqual(self.names(), ["text.txt"])

    def test_of_two_processes_with_one_output_the_first_to_end_keeps_it(self):
        process = self.held_in_its_work()
        self.write("small.txt", "hello")
        self.succeeds("tokenize", "--input", "small.txt", "--out", "shards", "--threads", 1)
        first = self.content("shards")
        process.send_signal(signal.SIGCONT)
        error = process.communicate(timeout=120)[1]
        self.assertEqual(process.returncode, 1, error)
        self.assertIn("dsmoe: shards: expected a free name, but another process made it meanwhile", error)
        self.assertEqual(self.content("shards"), first)
        self.assertEqual(self.names(), ["shards", "small.txt", "text.txt"])

    # Permissions.

    def test_the_umask_decides_permissions(self):
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        commands = self.outputs()
        del before
        for mask in (0o022, 0o002, 0o077):
            os.umask(mask)
            place = f"mask-{mask:03o}"
            made = [f"{place}/{name}" for name in commands]
            (self.directory / place).mkdir()
            for name, (command, _) in commands.items():
                self.succeeds(*[f"{place}/{name}" if part == "out" else part for part in command])
            self.succeeds("tokenize", "--input", "short.txt", "--out", f"{place}/deep/er/shards", "--threads", 1)
            self.succeeds("train", "tiny.yaml", "--data.train=run-data", f"--run_dir={place}/runs/run", WARM_UP, "--train.steps=2")
            paths = sorted((self.directory / place).rglob("*"))
            self.assertGreater(len(paths), len(made) + 20)
            for path in paths:
                expected = (0o777 if path.is_dir() else 0o666) & ~mask
                self.assertEqual(oct(path.stat().st_mode & 0o7777), oct(expected), path)

    # Results that cannot be printed.

    def printing(self):
        self.tiny_run("run", WARM_UP, "--train.steps=2")
        self.write("short.txt", TEXT[:600])
        self.write("prompts.txt", "the king\nno one\n")
        model = ["run", "--threads", 1]
        return [
            ["eval", *model, "--data", "short.txt"],
            ["eval", *model, "--data", "short.txt", "--json"],
            ["curve", *model, "--data", "short.txt", "--policies", "all"],
            ["generate", *model, "--prompt", "the", "--max-tokens", 3],
            ["generate", *model, "--prompt", "the", "--max-tokens", 3, "--json"],
            ["generate", *model, "--prompts", "prompts.txt", "--max-tokens", 3],
            ["generate", *model, "--prompts", "prompts.txt", "--max-tokens", 3, "--json-lines"],
            ["inspect", "run"],
            ["check", *model, "--json"],
            ["plan", "tiny.yaml", "--model.vocab_size=257"],
            ["report", "run", "--out", "page.html"],
            ["train", "tiny.yaml", "--data.train=run-data", "--print-config"],
            ["train", "--list-keys"],
            ["eval", "--help"],
            ["--version"],
        ]

    def test_results_that_cannot_be_printed_are_a_failure(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        for command in self.printing():
            for name, stdout, reason in (("full", os.open("/dev/full", os.O_WRONLY), "No space left on device"),
                                         ("closed", os.dup(writer), "Broken pipe")):
                with self.subTest(command=command, stdout=name):
                    (self.directory / "page.html").unlink(missing_ok=True)
                    says = [f"dsmoe: standard output: cannot write: {reason}"]
                    self.refused(*command, code=1, says=says, capture_output=False, stdout=stdout, stderr=subprocess.PIPE)
                    if command[0] == "report":
                        self.assertIn("</html>", (self.directory / "page.html").read_text())
                os.close(stdout)

    def test_a_run_does_not_need_standard_output_but_its_json_does(self):
        self.tiny_run("run", WARM_UP, "--train.steps=2")
        train = ["train", "tiny.yaml", "--data.train=run-data"]
        with open("/dev/full", "w") as full:
            self.succeeds(*train, WARM_UP, "--train.steps=3", capture_output=False, stdout=full, stderr=subprocess.PIPE)
            done = self.refused(*train, WARM_UP, "--train.steps=4", "--json", code=1, says=["standard output: cannot write"],
                                capture_output=False, stdout=full, stderr=subprocess.PIPE)
            launched = self.run_dsmoe("launch", "-n", 1, "--", *train, WARM_UP, "--train.steps=5", "--json", capture_output=False,
                                      stdout=full, stderr=subprocess.PIPE)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(launched.returncode, 1, launched.stderr)
        self.assertIn("dsmoe: standard output: cannot write: No space left on device", launched.stderr)
        self.assertTrue((self.directory / "run/checkpoints/step-00000005").is_dir())

    def test_a_closed_standard_output_receives_no_file_and_no_file_receives_the_result(self):
        self.write("text.txt", TEXT)
        self.succeeds("tokenize", "--input", "text.txt", "--out", "expected", "--threads", 1)
        closed = lambda: os.close(1)
        line = ["tokenize", "--input", "text.txt", "--out", "shards", "--threads", 1]
        self.refused(*line, code=1, says=["standard output: cannot write: Bad file descriptor"], capture_output=False,
                     stderr=subprocess.PIPE, preexec_fn=closed)
        self.assertEqual([*self.content("shards").values()], [*self.content("expected").values()])

    def test_a_reader_that_leaves_ends_what_only_prints(self):
        self.tiny_run("run", WARM_UP, "--train.steps=2")
        self.write("many.txt", "the king\n" * 400)
        process = subprocess.Popen([DSMOE, "generate", "run", "--prompts", "many.txt", "--max-tokens", "40", "--json-lines",
                                    "--max-batch", "1", "--threads", "1"], cwd=self.directory, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        json.loads(process.stdout.readline())
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        self.assertEqual(process.wait(timeout=60), 1, error)
        self.assertIn("dsmoe: standard output: cannot write: Broken pipe", error)
        tokens = int(error.split(" prompts, ")[1].split()[0])
        self.assertLess(tokens, 400 * 40)


if __name__ == "__main__":
    main()
