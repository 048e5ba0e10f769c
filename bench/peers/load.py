#!/usr/bin/env python3
"""Load on ours beside llama.cpp's server, on one random Llama in f32, in turns: what each takes, then load
curves at a quarter to twice of what ours takes.

    cargo build --release -p surprisal && cargo run --release -p surprisal-bench --bin random_llama -- /tmp/random-llama
    python3 bench/peers/load.py target/release/surprisal /tmp/random-llama PATH/TO/llama-server --out /tmp/load

Needs torch, safetensors and gguf to write the checkpoint for llama.cpp. Its server has no log-probabilities of a prompt: it is given
the same texts, runs them through the model, and makes logits of each text's last token alone, while ours answers every one.
"""

import argparse
import json
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from cpu import Surprisal, write_gguf

PORT = 8089
# Slots and cells for all texts in flight, contexts found again in slots and in its cache in memory.
SLOTS = ["-c", "16384", "-np", "16", "-kvu", "-fa", "on", "-ub", "512", "-b", "2048"]
WORKLOADS = {"documents": ["--length", "512"],
             "pairs": ["--context-length", "256", "--targets", "8", "--target-length", "32", "--prefixes", "16"]}


def wait(url: str) -> None:
    for _ in range(300):
        try:
            return urllib.request.urlopen(url).close()
        except urllib.error.URLError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model", type=Path)
    parser.add_argument("llama_server")
    parser.add_argument("--out", type=Path, default=Path("load"))
    parser.add_argument("--duration", default="8")
    parser.add_argument("--rounds", default="2")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    gguf = args.out / "f32-words.gguf"
    if not gguf.exists():
        write_gguf(args.model, gguf, "f32", vocabulary=True)
    ours = Surprisal(args.binary, args.model, "f32", args.out)
    command = [args.llama_server, "-m", str(gguf), "--port", str(PORT), *SLOTS]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as theirs:
        try:
            peer = f"http://127.0.0.1:{PORT}"
            wait(peer + "/health")
            bench = [args.binary, "bench", "--compare", ours.url, "llamacpp+" + peer, "--repeats", "4"]
            taken = {}
            for name in args.workloads.split(","):
                closed = ["--clients", "8", "--requests", "24", "--rounds", args.rounds, "--warm-up", "0"]
                out = args.out / name / "closed"
                subprocess.run([*bench, "--workload", name, *WORKLOADS[name], *closed, "--out", str(out)], check=True)
                outcomes = json.loads((out / "first.json").read_text())["outcomes"]
                taken[name] = statistics.median(outcome["requests_per_second"] for outcome in outcomes)
            for name, most in taken.items():
                rates = ",".join(f"{part * most:.3f}" for part in (0.25, 0.5, 1, 1.5, 2))
                swept = ["--rate", rates, "--connections", "8", "--duration", args.duration, "--seed", "2"]
                subprocess.run([*bench, "--workload", name, *WORKLOADS[name], *swept, "--out", str(args.out / name)], check=True)
        finally:
            theirs.terminate()
            ours.close()


if __name__ == "__main__":
    main()
