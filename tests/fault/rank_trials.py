#!/usr/bin/env python3
"""Trials of jobs of several ranks: one is killed, stopped or asked to stop at a random time.

Usage: rank_trials.py PATH/TO/dsmoe [--ranks N] [--kills N] [--stops N] [--terms N] [--seed N]
After each trial every rank must have ended within its bound, with a line that says where; the same command then goes on,
and its losses and weights must equal those of an undisturbed job, digit for digit. Exits with 1 at the first difference.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import run_trials

SETUP_SECONDS = 4.0
STEP_SECONDS = 3.0
STEADY_BOUND = 5.0
STOP_BOUND = 30.0
EXIT_STOPPED = 75
# Rank, phase, operation, time, state of the other ranks' processes, reason.
FAILURE = re.compile(r"dsmoe: rank \d+ of \d+: (?:(?:after )?step \d+|before the first step): .+ failed after [\d.]+ s, "
                     r"(?P<peers>[^:]+): .+")
TROUBLE = {"kill": "(is gone|has ended)", "stop": "is stopped"}


class RankTrials(run_trials.Trials):
    def __init__(self, dsmoe, root, seed, n_ranks):
        self.n_ranks = n_ranks
        self.n_starts = 0
        super().__init__(dsmoe, root, seed)

    def command(self, name):
        return [self.dsmoe, "train", self.config(name), f"--train.accumulation={2 * self.n_ranks}",
                f"--distributed.setup_timeout={SETUP_SECONDS}", f"--distributed.step_timeout={STEP_SECONDS}"]

    # Every rank is a child process: no launcher ends the others.
    def start_ranks(self, name):
        self.n_starts += 1
        ranks = []
        for rank in range(self.n_ranks):
            environment = dict(self.environment, RANK=str(rank), WORLD_SIZE=str(self.n_ranks),
                               DSMOE_RENDEZVOUS_FILE=str(self.root / f"rendezvous-{self.n_starts}"))
            log = open(self.root / f"{name}-rank-{rank}.log", "w")
            ranks.append(subprocess.Popen(self.command(name), stdout=subprocess.DEVNULL, stderr=log, env=environment))
        return ranks

    def finish(self, name):
        codes = [rank.wait(timeout=300) for rank in self.start_ranks(name)]
        if any(codes):
            run_trials.fail(f"{name}: expected exit codes 0, got {codes}:\n" + self.last_lines(name))
        return self.outcome(name)

    def last_lines(self, name):
        return "".join((self.root / f"{name}-rank-{rank}.log").read_text()[-400:] for rank in range(self.n_ranks))

    # Returns the seconds until all of `ranks` have ended; after `bound` kills the rest and fails.
    def wait_for_end(self, name, ranks, bound, what):
        start = time.monotonic()
        while any(rank.poll() is None for rank in ranks):
            if time.monotonic() - start > bound:
                left = [rank.pid for rank in ranks if rank.poll() is None]
                for rank in ranks:
                    rank.kill()
                run_trials.fail(f"{name} ({what}): {left} had not ended after {bound} s:\n" + self.last_lines(name))
            time.sleep(0.01)
        return time.monotonic() - start

    def is_done(self, name):
        checkpoints = self.checkpoints(name)
        return bool(checkpoints) and checkpoints[-1].name == f"step-{run_trials.STEPS:08}"

    # The line about the victim must be true: gone or stopped, or not known or not checked.
    def check_peers(self, peers, what, kind, victim):
        if re.search(rf"\branks? [\d, and]*\b{victim}\b[\d, and]* on this host (was|were) running", peers):
            run_trials.fail(f"{what}: rank {victim} was not running: {peers}")
        if self.n_ranks == 2 and not re.search(rf"rank {victim} {TROUBLE[kind]}|not known yet", peers):
            run_trials.fail(f"{what}: expected a report on rank {victim}: {peers}")

    def check_texts(self, name, survivors, what, codes, kind=None, victim=None):
        for rank in survivors:
            text = (self.root / f"{name}-rank-{rank}.log").read_text()
            match = FAILURE.search(text)
            if match and victim is not None:
                self.check_peers(match.group("peers"), what, kind, victim)
            if not match:
                run_trials.fail(f"{name} ({what}): expected a failure line of rank {rank}, got none, codes {codes}:\n{text[-600:]}")

    # One disturbance; returns the seconds that the others took, or None if the job had ended before.
    def disturb(self, name, kind):
        ranks = self.start_ranks(name)
        victim = self.random.randrange(self.n_ranks)
        moment = self.random.uniform(0.0, self.seconds)
        time.sleep(moment)
        what = f"{kind} of rank {victim} after {moment:.2f} s"
        if any(rank.poll() is not None for rank in ranks):
            self.wait_for_end(name, ranks, STOP_BOUND, what)
            return None
        logs = [(self.root / f"{name}-rank-{rank}.log") for rank in range(self.n_ranks)]
        has_begun = " info step " in logs[0].read_text()
        was_loading = run_trials.is_loading(ranks[victim])
        others = [rank for i, rank in enumerate(ranks) if i != victim]
        if kind == "kill":
            ranks[victim].kill()
            # In set-up the others wait for the timeout, and once more for the connections.
            bound = STEADY_BOUND if has_begun else 2 * SETUP_SECONDS + STEADY_BOUND
            seconds = self.wait_for_end(name, others, bound, what)
        elif kind == "stop":
            ranks[victim].send_signal(signal.SIGSTOP)
            bound = max(STEP_SECONDS, 2 * SETUP_SECONDS) + STEADY_BOUND
            seconds = self.wait_for_end(name, others, bound, what)
            ranks[victim].send_signal(signal.SIGCONT)
            self.wait_for_end(name, [ranks[victim]], STEADY_BOUND, what + ", then continued")
        else:
            ranks[victim].send_signal(signal.SIGTERM)
            seconds = self.wait_for_end(name, ranks, STOP_BOUND, what)
        codes = [rank.returncode for rank in ranks]
        if all(code == 0 for code in codes):
            return None  # it had just finished
        if kind == "term" and not was_loading:
            if any(code != EXIT_STOPPED for code in codes):
                run_trials.fail(f"{name} ({what}): expected {EXIT_STOPPED} of every rank, got {codes}:\n{self.last_lines(name)}")
        elif kind != "term":
            survivors = [i for i in range(self.n_ranks) if i != victim and codes[i] != 0]
            if any(codes[i] == 0 for i in range(self.n_ranks) if i != victim) and not self.is_done(name):
                run_trials.fail(f"{name} ({what}): a rank ended with 0: {codes}")
            self.check_texts(name, survivors, what, codes, kind, victim)
        return seconds

    def run(self, kind, n, disturb=None):
        disturb = disturb or self.disturb
        worst = 0.0
        n_done = 0
        n_jobs = 0
        while n_done < n:
            name = f"{kind}-{n_jobs}"
            n_jobs += 1
            while n_done < n and not ((self.root / name).exists() and self.is_done(name)):
                seconds = disturb(name, kind)
                if seconds is None:
                    break
                n_done += 1
                worst = max(worst, seconds)
            self.compare(name, kind, stops=kind == "term")
        print(f"{kind}: {n_done} trials in {n_jobs} jobs of {self.n_ranks} ranks, the others ended within {worst:.2f} s; "
              "every job gave the same digits", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dsmoe", type=pathlib.Path)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--terms", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    root = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-ranks-"))
    try:
        trials = RankTrials(options.dsmoe.resolve(), root, options.seed, options.ranks)
        for kind, n in (("kill", options.kills), ("stop", options.stops), ("term", options.terms)):
            if n > 0:
                trials.run(kind, n)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
