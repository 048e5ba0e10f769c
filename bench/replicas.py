#!/usr/bin/env python3
"""Compares affinity with round-robin routing over three replicas of one model: throughput and savings of the caches.

    cargo build --release -p surprisal && cargo run --release -p surprisal-bench --bin random_llama -- /tmp/random-llama
    python3 bench/replicas.py target/release/surprisal /tmp/random-llama

Each round starts three fresh servers for each routing in turn, and also a single server. On these it runs an experiment
that grows, as experiments do: first with few splits, then with more splits and another ratio, over the same documents.
Needs only Python. The replicas share this machine's cores, so only the ratio is meaningful.
"""

import argparse
import collections
import json
import re
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

EXPERIMENT = """seed = 3
[model]
urls = {urls}
routing = "{routing}"
[corpus]
kind = "santa-fe"
documents = {documents}
symbols = 512
exponent = 1.3
doubt = 1e-6
[measure]
splits = {splits}
ratios = {ratios}
window = 512
resamples = 10
pairing = "crossed"
"""
GROWS = [([16, 64, 128], [2, 3]), ([16, 32, 64, 128], [2, 3, 4])]
METRICS = ["scored_tokens_total", "computed_tokens_total", "prefix_cache_queries_total", "prefix_cache_hits_total"]


class Server:
    def __init__(self, binary: str, model: str):
        serve = [binary, "serve", "--model", model, "--port", "0", "--cache-mib", "1024"]
        self.process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
        self.url = next(found[0] for line in self.process.stderr if (found := re.search(r"http://[\d.]+:\d+", line)))
        threading.Thread(target=collections.deque, args=(self.process.stderr, 0), daemon=True).start()

    def metrics(self) -> list[float]:
        with urllib.request.urlopen(self.url + "/metrics") as response:
            text = response.read().decode()
        return [float(re.search(rf"^surprisal_{name} (\S+)$", text, re.M)[1]) for name in METRICS]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def grow(args: argparse.Namespace, routing: str, replicas: int) -> dict:
    """Runs one experiment on fresh servers; returns its seconds, and the servers' own counts."""
    servers = [Server(args.binary, args.model) for _ in range(replicas)]
    rows, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for step, (splits, ratios) in enumerate(GROWS):
            file = Path(folder) / f"{step}.toml"
            file.write_text(EXPERIMENT.format(urls=json.dumps([server.url for server in servers]), routing=routing,
                                              documents=args.documents, splits=splits, ratios=ratios))
            command = [args.binary, "estimate", str(file), "--out", f"{folder}/{step}", "--json"]
            start = time.perf_counter()
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            seconds += time.perf_counter() - start
            rows.append(json.loads(answer)["rows"])
    scored, computed, looked, found = (sum(counts) for counts in zip(*(server.metrics() for server in servers)))
    for server in servers:
        server.close()
    return {"seconds": seconds, "rate": scored / seconds, "scored": scored, "computed": computed, "hits": found / looked, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ways = {"three, affinity": ("affinity", 3), "three, round-robin": ("round-robin", 3), "one server": ("affinity", 1)}
    runs = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            runs[name].append(grow(args, *way))
    rows = [run["rows"] for way in runs.values() for run in way]
    assert all(row == rows[0] for row in rows), "estimates differ"
    print("| servers | scored tokens/s | computed tokens | found in a cache | relative to round-robin |\n| --- | ---: | ---: | ---: | ---: |")
    for name, way in runs.items():
        ratios = sorted(run["rate"] / turns["rate"] for run, turns in zip(way, runs["three, round-robin"]))
        print(f"| {name} | {statistics.median(run['rate'] for run in way):.0f} | {way[0]['computed']:.0f} | {way[0]['hits']:.1%} "
              f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |")
    scored = runs["one server"][0]["scored"]
    print(f"{scored:.0f} log-probabilities per run, {args.rounds} rounds, medians; the estimates of all runs have the same bits")


if __name__ == "__main__":
    main()
