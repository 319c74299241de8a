#!/usr/bin/env python3
"""Tests waits for other ranks: each has a bound, names its cause correctly, and ends with 75 after a stop signal.

Ranks are configured by environment variables, as under torchrun, Slurm and mpirun: no launcher ends them.
"""

import os
import re
import select
import signal
import socket
import subprocess
import time
import unittest

from support import DSMOE, HabitsTest, main

EXIT_STOPPED = 75
SETUP_SECONDS = 2.0
BOUND = 2 * SETUP_SECONDS + 5  # of the README
PATIENCE = 240  # seconds, for events that come at once on an idle machine
LISTENING, CONNECTED = "0A", "01"  # states in /proc/net/tcp


def wait_until(happened, what):
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {PATIENCE} s")
        time.sleep(0.02)


def has_socket(port, state):
    for family in ("tcp", "tcp6"):
        with open(f"/proc/net/{family}", encoding="ascii") as sockets:
            for fields in map(str.split, sockets):
                if fields[1].endswith(f":{port:04X}") and fields[3] == state:
                    return True
    return False


def catches_stops(pid):
    """True once the process has its handlers and lets the signals in."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        masks = dict(line.split(":") for line in status if line.startswith("Sig"))
    bit = 1 << (signal.SIGTERM - 1)
    return bool(int(masks["SigCgt"], 16) & bit) and not int(masks["SigBlk"], 16) & bit


class Relay:
    """Relays bytes between one rank and the store of rank 0 at `target`, and observes them."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.port = self.listener.getsockname()[1]
        self.ends = ()

    def carry_until_answered(self, request):
        """Accepts the rank and carries bytes until it has sent `request` and the store has answered something later."""
        rank, _ = self.listener.accept()
        store = socket.create_connection(("127.0.0.1", self.target))
        self.ends = (rank, store)
        sent = b""
        while True:
            end, data = self.carry()
            if end is rank:
                sent += data
            elif request in sent:
                return

    def carry_until_closed(self):
        """Carries bytes until one of the two closes, and closes the other."""
        try:
            while self.carry()[1]:
                pass
        except OSError:
            pass
        self.close()

    def carry(self):
        readable, _, _ = select.select(self.ends, (), (), PATIENCE)
        if not readable:
            raise AssertionError(f"rank and store were silent for {PATIENCE} s")
        data = readable[0].recv(1 << 16)
        self.ends[1 - self.ends.index(readable[0])].sendall(data)
        return readable[0], data

    def close(self):
        for end in (self.listener, *self.ends):
            end.close()


class WaitsTest(HabitsTest):
    def setUp(self):
        super().setUp()
        self.tiny_run("seed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self, rank, *overrides, size=2, timeout=SETUP_SECONDS, run="run", **variables):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                                    "MASTER_PORT": str(self.port)} | variables
        log = open(self.directory / f"rank-{rank}.log", "w", encoding="utf-8")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            [DSMOE, "train", "tiny.yaml", f"--run_dir={run}", "--data.train=seed-data", f"--train.accumulation={size}",
             f"--distributed.setup_timeout={timeout}", *overrides],
            cwd=self.directory, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def complaint(self, rank):
        text = (self.directory / f"rank-{rank}.log").read_text()
        lines = [line for line in text.splitlines() if line.startswith("dsmoe: ")]
        self.assertEqual(len(lines), 1, text)
        return lines[0]

    # The process ends with 1 and a line about `phase`, within the bound of the promise by its own clock.
    def check_failed(self, process, rank, phase, says):
        self.assertEqual(process.wait(timeout=PATIENCE), 1)
        line = self.complaint(rank)
        match = re.match(rf"dsmoe: rank {rank} of \d+: before the first step: {phase} failed after ([\d.]+) s, (.*)", line)
        self.assertIsNotNone(match, line)
        self.assertLessEqual(float(match.group(1)), BOUND, line)
        self.assertIn(says, match.group(2))

    def check_stopped(self, process, rank, phase):
        self.assertEqual(process.wait(timeout=PATIENCE), EXIT_STOPPED)
        self.assertRegex(self.complaint(rank), rf"dsmoe: rank {rank} of \d+: stopped before the first step, while {phase}; "
                                               "the same command starts again")

    def opening(self):
        return rf"opening the store at 127\.0\.0\.1:{self.port}"

    def waiting(self):
        return rf"waiting for the other ranks at 127\.0\.0\.1:{self.port}"

    def mute_listener(self):
        """Accepts connections and never answers."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.addCleanup(listener.close)
        listener.settimeout(PATIENCE)
        return listener

    def stopped_rank_0(self, timeout=SETUP_SECONDS):
        first = self.start(0, timeout=timeout)
        wait_until(lambda: has_socket(self.port, LISTENING), "listening of rank 0")
        first.send_signal(signal.SIGSTOP)
        return first

    def test_a_rank_0_that_is_stopped_once_it_listens(self):
        first = self.stopped_rank_0()
        self.check_failed(self.start(1), 1, self.opening(), "the other ranks' processes are not known yet: ")
        first.send_signal(signal.SIGCONT)
        self.assertEqual(first.wait(timeout=PATIENCE), 1)
        # Its timeout passed while it was stopped: the rank or its watchdog reports it, whichever runs first.
        self.assertRegex(self.complaint(0), rf"dsmoe: rank 0 of 2: before the first step: ({self.opening()}|{self.waiting()}) "
                                            r"failed after [\d.]+ s, ")

    def test_a_port_that_accepts_and_never_answers(self):
        self.mute_listener()
        self.check_failed(self.start(1), 1, self.opening(), "the other ranks' processes are not known yet: ")

    def test_a_port_where_nobody_listens(self):
        self.check_failed(self.start(1), 1, self.opening(), "the other ranks' processes are not known yet: ")

    def test_a_missing_rank_is_named(self):
        first, last = self.start(0, size=3), self.start(2, size=3)
        self.check_failed(first, 0, self.waiting(), "these ranks did not come within the set-up timeout of 2.0 s: 1")
        self.assertEqual(last.wait(timeout=PATIENCE), 1)

    def test_a_missing_rank_of_a_file_rendezvous_is_named(self):
        file = self.directory / "rendezvous"
        first = self.start(0, DSMOE_RENDEZVOUS_FILE=str(file))
        self.check_failed(first, 0, f"waiting for the other ranks at {re.escape(str(file))}",
                          "the other ranks' processes are not known yet: these ranks did not come within the set-up "
                          "timeout of 2.0 s: 1")

    def test_a_stop_while_rank_0_does_not_answer(self):
        self.stopped_rank_0(timeout=600)
        second = self.start(1, timeout=600)
        wait_until(lambda: has_socket(self.port, CONNECTED), "connection of rank 1")
        wait_until(lambda: catches_stops(second.pid), "start of rank 1")
        second.send_signal(signal.SIGTERM)
        self.check_stopped(second, 1, self.opening())

    def test_a_stop_while_a_port_never_answers(self):
        listener = self.mute_listener()
        second = self.start(1, timeout=600)
        connection, _ = listener.accept()
        self.addCleanup(connection.close)
        second.send_signal(signal.SIGTERM)
        self.check_stopped(second, 1, self.opening())

    def test_a_stop_while_nobody_listens(self):
        second = self.start(1, timeout=600)
        wait_until(lambda: catches_stops(second.pid), "start of rank 1")
        second.send_signal(signal.SIGHUP)
        # It may not have begun the rendezvous yet.
        self.assertEqual(second.wait(timeout=PATIENCE), EXIT_STOPPED)
        self.assertIn("rank 1 of 2: stopped before the first step, while ", self.complaint(1))

    # Rank 2 never starts. The traffic between rank 1 and rank 0's store shows that rank 1 has arrived.
    def test_a_stop_of_one_rank_ends_all_ranks_that_have_arrived(self):
        for asked in (0, 1):
            with self.subTest(asked=asked):
                relay = Relay(self.port)
                self.addCleanup(relay.close)
                ranks = [self.start(0, size=3, timeout=600)]
                wait_until(lambda: has_socket(self.port, LISTENING), "listening of rank 0")
                ranks.append(self.start(1, size=3, timeout=600, MASTER_PORT=str(relay.port)))
                relay.carry_until_answered(b"process/1")
                ranks[asked].send_signal(signal.SIGTERM)
                relay.carry_until_closed()
                for rank, process in enumerate(ranks):
                    self.check_stopped(process, rank, r"waiting for the other ranks at 127\.0\.0\.1:\d+")

    def test_a_stop_of_all_ranks_at_any_moment_of_the_start(self):
        moments = {
            "handlers": lambda run: True,
            "listening": lambda run: has_socket(self.port, LISTENING),
            "connected": lambda run: has_socket(self.port, CONNECTED) or run.exists(),
            "run directory": lambda run: run.exists(),
        }
        for moment, has_come in moments.items():
            with self.subTest(moment=moment):
                run = self.directory / f"run-{moment}"
                ranks = [self.start(rank, "--train.steps=1000000", "--train.save_every=0", timeout=600, run=run)
                         for rank in (0, 1)]
                for process in ranks:
                    wait_until(lambda process=process: catches_stops(process.pid), "start of a rank")
                wait_until(lambda: has_come(run), moment)
                for process in ranks:
                    process.send_signal(signal.SIGTERM)
                self.assertEqual([process.wait(timeout=PATIENCE) for process in ranks], [EXIT_STOPPED] * 2)


if __name__ == "__main__":
    main()
