#!/usr/bin/env python3
"""Trials of a job over two hosts: network namespaces joined by a bridge, whose ports are set down at random times.

Usage: host_trials.py PATH/TO/dsmoe [--ranks-per-host N] [--cuts N] [--seed N]
First a job over both hosts must give the same digits as the job on one host. Then in each trial one host is cut off: the
ranks on both sides must end within their bound, with a line that says where; once the link is up the same command goes on
and must give the same digits again. Exits with 1 at the first difference, with 77 where namespaces cannot be made.
"""

import argparse
import pathlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

import rank_trials
import run_trials

SKIPPED = 77
PORT = 29517


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Network:
    """Two hosts, 10.77.0.1 and 10.77.0.2, each with one wire to a bridge in a separate namespace."""

    def __init__(self):
        self.hub = f"dsmoe-hub-{os.getpid()}"
        self.hosts = [f"dsmoe-host{i}-{os.getpid()}" for i in (1, 2)]

    def __enter__(self):
        try:
            self.build()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            print(f"skipped: cannot make network namespaces: {getattr(error, 'stderr', None) or error}")
            sys.exit(SKIPPED)
        return self

    def build(self):
        ip("netns", "add", self.hub)
        ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.hub, "link", "set", "bridge", "up")
        for i, host in enumerate(self.hosts):
            ip("netns", "add", host)
            ip("-n", self.hub, "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("-n", self.hub, "link", "set", f"port{i}", "master", "bridge", "up")
            ip("-n", host, "address", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "link", "set", "lo", "up")

    def set_port(self, i, state):
        ip("-n", self.hub, "link", "set", f"port{i}", state)

    def __exit__(self, *_):
        for name in (*self.hosts, self.hub):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


class HostTrials(rank_trials.RankTrials):
    def __init__(self, dsmoe, root, seed, network, ranks_per_host):
        self.network, self.per_host = network, ranks_per_host
        self.one_host = True
        super().__init__(dsmoe, root, seed, 2 * ranks_per_host)
        self.one_host = False

    # A new port for every start: the last one may still be waiting to close.
    def start_ranks(self, name):
        if self.one_host:
            return super().start_ranks(name)
        self.n_starts += 1
        ranks = []
        for rank in range(self.n_ranks):
            host, local = divmod(rank, self.per_host)
            environment = dict(self.environment, RANK=str(rank), WORLD_SIZE=str(self.n_ranks), LOCAL_RANK=str(local),
                               LOCAL_WORLD_SIZE=str(self.per_host), MASTER_ADDR="10.77.0.1",
                               MASTER_PORT=str(PORT + self.n_starts))
            if self.n_starts % 2 == 0:
                environment["GLOO_SOCKET_IFNAME"] = "eth0"
            log = open(self.root / f"{name}-rank-{rank}.log", "w")
            ranks.append(subprocess.Popen(["ip", "netns", "exec", self.network.hosts[host], *self.command(name)],
                                          stdout=subprocess.DEVNULL, stderr=log, env=environment))
        return ranks

    def cut(self, name, _):
        ranks = self.start_ranks(name)
        port = self.random.randrange(2)
        moment = self.random.uniform(0.0, self.seconds)
        time.sleep(moment)
        what = f"host {port + 1} cut off after {moment:.2f} s"
        if any(rank.poll() is not None for rank in ranks):
            self.wait_for_end(name, ranks, rank_trials.STOP_BOUND, what)
            return None
        has_begun = " info step " in (self.root / f"{name}-rank-0.log").read_text()
        timeout = rank_trials.STEP_SECONDS if has_begun else 2 * rank_trials.SETUP_SECONDS
        self.network.set_port(port, "down")
        try:
            seconds = self.wait_for_end(name, ranks, timeout + rank_trials.STEADY_BOUND, what)
        finally:
            self.network.set_port(port, "up")
        codes = [rank.returncode for rank in ranks]
        if any(code == 0 for code in codes):
            if not self.is_done(name):
                run_trials.fail(f"{name} ({what}): a rank ended with 0: {codes}")
            return None
        self.check_texts(name, range(self.n_ranks), what, codes)
        return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dsmoe", type=pathlib.Path)
    parser.add_argument("--ranks-per-host", type=int, default=1)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    root = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-hosts-"))
    try:
        with Network() as network:
            trials = HostTrials(options.dsmoe.resolve(), root, options.seed, network, options.ranks_per_host)
            trials.compare("hosts", "over two hosts")
            print(f"two hosts of {options.ranks_per_host} ranks: the digits of one host", flush=True)
            trials.run("cut", options.cuts, disturb=trials.cut)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
