#!/usr/bin/env python3
"""Load-tests the server at its capacity, at 0.8 times for long, and at 3 times; prints a table for bench/results.

Serves the built-in oracle with at most 16,384 tokens in flight, and sends documents to it from this machine. Needs an
idle machine.

    bench/server/load.py                      # about 22 minutes
    bench/server/load.py --length 64          # short documents: the largest share of work other than computation
    bench/server/load.py --scale 0.02         # a trial run, with phases of seconds
    SURPRISAL=path/to/surprisal               # environment variable: the binary (default: a release build)
"""

import argparse
import functools
import itertools
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOM = 16384  # tokens in flight
SAMPLE = 5.0  # seconds between samples of memory
ROUNDS = 8  # turns at three times the capacity, each between two measurements of the capacity
TURN = 12  # seconds per turn; in longer turns, the machine's speed changes between the two measurements


def program():
    if path := os.environ.get("SURPRISAL"):
        return path
    root = pathlib.Path(__file__).resolve().parents[2]
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "surprisal"], cwd=root, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return str(target / "release" / "surprisal")


class Server:
    """A server on a free port, which runs for the length of a `with` block."""

    def __init__(self, binary, folder):
        config = folder / "config.toml"
        config.write_text(f"port = 0\ncache_mib = 64\n[server]\nmax_waiting_tokens = {ROOM}\n")
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([binary, "serve", "--config", str(config)], stderr=log)

    def __enter__(self):
        for _ in range(600):
            if found := re.search(r"serving .* on (http://\S+),", self.log.read_text()):
                self.url = found[1]
                return self
            time.sleep(0.1)
        raise SystemExit(f"the server did not start:\n{self.log.read_text()}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)

    def metric(self, name):
        text = urllib.request.urlopen(self.url + "/metrics").read().decode()
        return float(re.search(rf"^surprisal_{name} (\S+)$", text, re.M)[1])

    def cpu(self):
        """Returns the CPU seconds of all threads of the server."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def resident(self):
        """Returns the resident memory in megabytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


class Memory(threading.Thread):
    """A thread that samples the server's memory until `stop`."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.samples, self.over = server, [], threading.Event()

    def run(self):
        while not self.over.wait(SAMPLE):
            self.samples.append(self.server.resident())

    def stop(self):
        self.over.set()
        self.join()
        return self.samples


class Middle(threading.Thread):
    """A thread that measures the tokens per second that the server scores in the middle of a phase.

    The rate after the end of a phase does not count, because only retries of rejected requests run then.
    """

    def __init__(self, server, seconds):
        super().__init__(daemon=True)
        self.server, self.seconds, self.rate = server, seconds, 0.0

    def run(self):
        time.sleep(0.3 * self.seconds)
        began, before = time.monotonic(), self.server.metric("scored_tokens_total")
        time.sleep(0.6 * self.seconds)
        self.rate = (self.server.metric("scored_tokens_total") - before) / (time.monotonic() - began)


def stolen():
    """Returns the CPU time that the host took from this machine's cores, and all CPU time, in clock ticks."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def bench(binary, server, documents, name, seconds, *more):
    """Runs a phase; returns its outcome, with the cores that server and generator used and the share the host took."""
    command = [binary, "bench", "--url", server.url, *documents, "--duration", f"{seconds:.1f}", "--json", *more]
    before, began, own, host = server.cpu(), time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), stolen()
    middle = Middle(server, seconds)
    middle.start()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    middle.join()
    elapsed, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    outcome = json.loads(done.stdout)["outcomes"][0]
    outcome["name"] = name
    outcome["server_cores"] = (server.cpu() - before) / elapsed
    outcome["own_cores"] = (after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime) / elapsed
    taken, all_time = (now - then for now, then in zip(stolen(), host))
    outcome["stolen"], outcome["middle"] = taken / all_time, middle.rate
    print(f"{name}: {outcome['requests_per_second']:.1f} requests/s", file=sys.stderr)
    return outcome


def row(outcome, capacity):
    latency = outcome["latency"]["bulk"]
    # Requests that were still waiting to be sent at the end have not failed.
    failed = sum(kind["count"] for name, kind in outcome["failures"].items() if name != "never sent")
    repeats = outcome["repeats"]
    return (
        f"| {outcome['name']} | {outcome['requests_per_second']:.1f} /s | {outcome['middle']:.0f} | {outcome['middle'] / capacity:.2f} "
        f"| {latency['p50']:.0f} ms | {latency['p99']:.0f} ms | {latency['p99'] / latency['p50']:.1f} "
        f"| {outcome['refused']:,} | {failed:,} | {repeats['same']} of {repeats['asked']} "
        f"| {outcome['server_cores']:.2f} + {outcome['own_cores']:.2f} | {outcome['stolen']:.1%} |"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="Factor for the length of all phases")
    parser.add_argument("--length", type=int, default=512, help="Tokens per document")
    args = parser.parse_args()
    scale, documents = args.scale, ["--workload", "documents", "--length", str(args.length)]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    binary = program()
    load = f"{os.getloadavg()[0]:.1f}"
    with tempfile.TemporaryDirectory() as folder, Server(binary, pathlib.Path(folder)) as server:
        # A different seed for each phase, so that no phase finds cached results of another one.
        seeds = (["--seed", str(seed)] for seed in itertools.count(1))
        phase = functools.partial(bench, binary, server, documents)
        closed = lambda: phase("16 clients", TURN * scale, "--clients", "16", *next(seeds))
        first = closed()
        rate = first["requests_per_second"]
        steady = ["--rate", f"{0.8 * rate:.1f}"]
        memory = Memory(server)
        memory.start()
        even = phase("0.8, even", 600 * scale, *steady, "--even", *next(seeds))
        samples = memory.stop()
        poisson = phase("0.8, Poisson", 240 * scale, *steady, *next(seeds))
        many = ["--rate", f"{3 * rate:.1f}", "--connections", "2000"]
        turns = [closed()]
        for _ in range(ROUNDS):
            turns += [phase("3 times", TURN * scale, *many, *next(seeds)), closed()]
        time.sleep(1)
        held = {name: server.metric(name) for name in ("admitted_tokens", "num_requests_running", "kv_cache_usage_perc")}

    scored = [turn["middle"] for turn in turns]
    capacity = statistics.median([first["middle"], *scored[::2]])
    kept = sorted(2 * three / (before + after) for before, three, after in zip(scored[::2], scored[1::2], scored[2::2]))
    print(f"load average before: {load}\n")
    print("| load | answered | tokens/s in the middle | of capacity | p50 | p99 | p99/p50 | rejected | failed | same bits | cores: server + generator | host took |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for outcome in (first, even, poisson, *turns):
        print(row(outcome, capacity))
    print(f"\nkept at 3 times: {statistics.median(kept):.2f} ({kept[0]:.2f} to {kept[-1]:.2f}) of the capacity before and after")
    if len(samples) >= 10:
        # After a tenth of the time, the server has allocated what it needs.
        tenth = len(samples) // 10
        early, late = (sum(part) / len(part) for part in (samples[tenth : 2 * tenth], samples[-tenth:]))
        print(f"resident at 0.8: {early:.1f} MB in the second tenth, {late:.1f} MB in the last ({late / early - 1:+.1%})")
    print("held at the end: " + ", ".join(f"{name} {value:.0f}" for name, value in held.items()))


main()
