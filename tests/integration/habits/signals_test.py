#!/usr/bin/env python3
"""Tests signals, lost terminals and broken pipes: a stop is honoured at any time, and a lost log does not end a run."""

import json
import os
import pty
import re
import signal
import subprocess
import time
import unittest

from support import DSMOE, TEXT, HabitsTest, main

EXIT_STOPPED = 75
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FOREVER = ("--train.steps=1000000", "--train.save_every=0", "--train.log_every=1", "--train.schedule.kind=constant")
# Keys of a metrics line that depend on the clock or the machine.
UNSTABLE = ("tokens_per_second", "flops_per_second", "mfu", "peak_memory_bytes", "time", "seconds")
PATIENCE = 240  # seconds, for events that come at once on an idle machine


def wait_until(happened, what):
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {PATIENCE} s")
        time.sleep(0.02)


class SignalsTest(HabitsTest):
    def setUp(self):
        super().setUp()
        self.tiny_run("seed")  # writes tiny.yaml and seed-data

    def arguments(self, run, *overrides, ranks=1):
        launch = ["launch", "-n", str(ranks), "--"] if ranks > 1 else []
        return [*launch, "train", "tiny.yaml", f"--run_dir={run}", "--data.train=seed-data", "--train.accumulation=2",
                *overrides]

    def start(self, *arguments, **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
        process = subprocess.Popen([DSMOE, *arguments], cwd=self.directory, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def lines(self, run):
        path = self.directory / run / "metrics.jsonl"
        if not path.exists():
            return []
        text = path.read_text()
        return [json.loads(line, parse_float=str) for line in text[:text.rfind("\n") + 1].splitlines()]

    def wait_for_steps(self, run, n=3):
        wait_until(lambda: len(self.lines(run)) >= n, f"step {n} of {run}")

    def saved_step(self, run):
        state = (self.directory / run / "latest").read_text().strip()
        return int(re.search(r"step-(\d+)", state).group(1))

    # The stopped run, once resumed, must give the losses of an undisturbed run.
    def check_resumes(self, run, ranks=1):
        last = self.saved_step(run)
        self.assertGreaterEqual(last, self.lines(run)[-1]["step"], "the last step was not saved")
        steps = f"--train.steps={last + 5}"
        for name in (run, "whole"):
            self.succeeds(*self.arguments(name, *FOREVER, steps, ranks=ranks))

        def losses(name):
            # Events, such as alarms over the history since a start, are not state of the run.
            return [{key: value for key, value in line.items() if key not in UNSTABLE}
                    for line in self.lines(name) if "event" not in line]

        self.assertEqual(losses(run), losses("whole"))

    # As a shell runs it; Ctrl-C reaches all of the pipeline, and tee dies of it.
    def interrupt_with_tee(self, run, ranks):
        command = " ".join(f"'{word}'" for word in [DSMOE, *self.arguments(run, *FOREVER, ranks=ranks)])
        line = f"trap : INT; {command} 2>&1 | tee {run}.log; echo ${{PIPESTATUS[0]}} > {run}.rc"
        shell = subprocess.Popen(["bash", "-c", line], cwd=self.directory, start_new_session=True,
                                 stdout=subprocess.DEVNULL)
        self.addCleanup(lambda: shell.poll() is None and os.killpg(shell.pid, signal.SIGKILL))
        self.wait_for_steps(run)
        os.killpg(shell.pid, signal.SIGINT)
        shell.wait(timeout=PATIENCE)
        return int((self.directory / f"{run}.rc").read_text())

    def test_interrupt_with_tee_saves(self):
        self.assertEqual(self.interrupt_with_tee("run", ranks=1), EXIT_STOPPED)
        self.check_resumes("run")

    def test_interrupt_of_launch_with_tee_saves(self):
        self.assertEqual(self.interrupt_with_tee("run", ranks=2), EXIT_STOPPED)
        self.check_resumes("run", ranks=2)

    def test_a_log_without_reader_does_not_end_a_run(self):
        for name, ranks in (("one", 1), ("two", 2)):
            with self.subTest(ranks=ranks):
                read_end, write_end = os.pipe()
                process = self.start(*self.arguments(name, "--train.log_every=1", ranks=ranks), stdout=write_end,
                                     stderr=write_end)
                os.close(write_end)
                os.close(read_end)
                self.assertEqual(process.wait(timeout=PATIENCE), 0)
                self.assertEqual(self.lines(name)[-1]["step"], 12)

    # The terminal of the session closes, as with a closed window or a broken connection.
    def test_a_closed_terminal_stops_and_saves(self):
        for name, ranks in (("one", 1), ("two", 2)):
            with self.subTest(ranks=ranks):
                pid, terminal = pty.fork()
                if pid == 0:
                    os.chdir(self.directory)
                    os.execv(DSMOE, [DSMOE, *self.arguments(name, *FOREVER, ranks=ranks)])
                try:
                    # Reading keeps the terminal from filling up.
                    os.set_blocking(terminal, False)

                    def has_begun():
                        try:
                            os.read(terminal, 1 << 16)
                        except BlockingIOError:
                            pass
                        return len(self.lines(name)) >= 3

                    wait_until(has_begun, "step 3")
                finally:
                    os.close(terminal)
                _, status = os.waitpid(pid, 0)
                self.assertEqual(os.waitstatus_to_exitcode(status), EXIT_STOPPED)
                self.assertGreaterEqual(self.saved_step(name), self.lines(name)[-1]["step"])

    def test_nohup_keeps_a_run_from_stopping(self):
        for name, ranks in (("one", 1), ("two", 2)):
            with self.subTest(ranks=ranks):
                process = self.start(*self.arguments(name, *FOREVER, ranks=ranks),
                                     preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
                self.wait_for_steps(name)
                process.send_signal(signal.SIGHUP)
                self.wait_for_steps(name, len(self.lines(name)) + 30)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(timeout=PATIENCE), EXIT_STOPPED)

    # A closing terminal sends SIGHUP from the shell and from the kernel.
    def test_a_second_hangup_does_not_end_the_save(self):
        process = self.start(*self.arguments("run", *FOREVER))
        self.wait_for_steps("run")
        process.send_signal(signal.SIGHUP)
        for _ in range(50):
            if process.poll() is None:
                process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(timeout=PATIENCE), EXIT_STOPPED)
        self.check_resumes("run")

    # Both signals are pending when the process continues: the first requests a stop, the second ends it.
    def test_a_second_signal_ends_at_once(self):
        process = self.start(*self.arguments("run", *FOREVER))
        self.wait_for_steps("run")
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        self.assertIn(process.wait(timeout=PATIENCE), (128 + signal.SIGTERM, 128 + signal.SIGINT))

    # A signal that is pending when the program begins reaches it at the first moment that it lets it, before or after it
    # starts itself again for OpenMP's sake.
    def test_a_stop_in_the_first_moment_ends_with_75(self):
        text = self.write("text.txt", TEXT)
        commands = {
            "train": self.arguments("early"),
            "launch": self.arguments("early", ranks=2),
            "eval": ["eval", "seed", "--data", text],
            "choices": ["eval", "seed", "--choices", self.write("c.jsonl", '{"good": "a king", "bad": "no one"}\n')],
            "curve": ["curve", "seed", "--data", text],
            "budget": ["budget", "seed", "--data", text, "--active-parameters", "40000", "--out", "routing.yaml"],
            "recommend": ["recommend", "seed", "--data", text],
            "generate": ["generate", "seed", "--prompt", "the king"],
            "prompts": ["generate", "seed", "--prompts", self.write("prompts.txt", "the king\nno one\n")],
        }
        restarts = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        for name, arguments in commands.items():
            for number in STOP_SIGNALS:
                for environment in (restarts, restarts | {"OMP_WAIT_POLICY": "passive"}):
                    with self.subTest(command=name, signal=number.name, restarts=environment is restarts):
                        def make_pending(number=number):
                            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
                            os.kill(os.getpid(), number)

                        process = self.start(*map(str, arguments), env=environment, preexec_fn=make_pending,
                                             stderr=subprocess.PIPE)
                        _, log = process.communicate(timeout=PATIENCE)
                        self.assertEqual(process.returncode, EXIT_STOPPED, log)
        self.assertFalse((self.directory / "early").exists(), "a run that did not begin left a directory")

    def test_a_stopped_evaluation_is_marked_incomplete(self):
        def make_pending():
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            os.kill(os.getpid(), signal.SIGTERM)

        text = self.write("text.txt", TEXT)
        for command in ("eval", "curve"):
            with self.subTest(command=command):
                done = self.run_dsmoe(command, "seed", "--data", text, "--json", preexec_fn=make_pending)
                self.assertEqual(done.returncode, EXIT_STOPPED, done.stderr)
                self.assertIs(json.loads(done.stdout)["complete"], False)

    # Files that the program opens must not get the descriptors of its log.
    def test_closed_standard_streams_do_not_mix_the_log_into_files(self):
        def close_all():
            for fd in (0, 1, 2):
                os.close(fd)

        process = self.start(*self.arguments("run", "--train.log_every=1"), preexec_fn=close_all)
        self.assertEqual(process.wait(timeout=PATIENCE), 0)
        self.assertEqual([line["step"] for line in self.lines("run")], list(range(1, 13)))
        for path in (self.directory / "run").rglob("*"):
            self.assertFalse(path.is_file() and b" info step" in path.read_bytes(), path)
        self.succeeds("eval", "run", "--data", self.write("text.txt", TEXT))


if __name__ == "__main__":
    main()
