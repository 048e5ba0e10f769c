#!/usr/bin/env python3
"""Load-tests surprisal's server and others on one random Llama, in turns: capacities, then load curves.

The curves run from a quarter of surprisal's capacity to twice as much.

    cargo build --release -p surprisal && cargo run --release -p surprisal-bench --bin random_llama -- /tmp/random-llama
    python3 bench/peers/load.py target/release/surprisal /tmp/random-llama --vllm PATH/TO/vllm --llama-server PATH/TO/llama-server --out /tmp/load

vLLM returns log-probabilities of prompts, as surprisal does; its CPU build needs the libraries of --vllm-preload (in
the format of LD_PRELOAD: tcmalloc, Intel's OpenMP). llama.cpp's server cannot return them: it gets the same texts, runs
them through the model, and computes logits of only the last token, while surprisal scores every token. Needs torch,
safetensors and gguf to write the checkpoint for it.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

from cpu import Process, Surprisal, Vllm, wait, write_gguf

# Slots and cells for all texts in flight; contexts are reused from slots and from the cache in memory.
SLOTS = ["-c", "16384", "-np", "16", "-kvu", "-fa", "on", "-ub", "512", "-b", "2048"]
WORKLOADS = {"documents": ["--length", "512"],
             "pairs": ["--context-length", "256", "--targets", "8", "--target-length", "32", "--prefixes", "16"]}


class LlamaServer(Process):
    """llama.cpp's server; `program` is its path."""

    name = "llamacpp"
    PORT = 8089
    url = f"http://127.0.0.1:{PORT}"
    program = None

    def __init__(self, _binary: str, folder: Path, kind: str, out: Path):
        gguf = out / f"{kind}-words.gguf"
        if not gguf.exists():
            write_gguf(folder, gguf, kind, vocabulary=True)
        command = [self.program, "-m", str(gguf), "--port", str(self.PORT), *SLOTS]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait(self.process, self.url + "/health")


def compare(ours: str, peer, args, out: Path) -> None:
    """Measures both servers at their capacity, then at the same rates."""
    vocab = json.loads((args.model / "config.json").read_text())["vocab_size"]
    bench = [args.binary, "bench", "--compare", ours, f"{peer.name}+{peer.url}", "--repeats", "4", "--vocab", str(vocab)]
    names, taken = args.workloads.split(","), {}
    for name in names:
        closed = ["--clients", "8", "--requests", "24", "--rounds", args.rounds, "--warm-up", "0"]
        subprocess.run([*bench, "--workload", name, *WORKLOADS[name], *closed, "--out", str(out / name / "closed")], check=True)
        outcomes = json.loads((out / name / "closed" / "first.json").read_text())["outcomes"]
        taken[name] = statistics.median(outcome["requests_per_second"] for outcome in outcomes)
    for name in names if float(args.duration) else []:
        rates = ",".join(f"{part * taken[name]:.3f}" for part in (0.25, 0.5, 1, 1.5, 2))
        swept = ["--rate", rates, "--connections", "8", "--duration", args.duration, "--seed", "2"]
        subprocess.run([*bench, "--workload", name, *WORKLOADS[name], *swept, "--out", str(out / name)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model", type=Path)
    parser.add_argument("--vllm")
    parser.add_argument("--vllm-preload")
    parser.add_argument("--llama-server")
    parser.add_argument("--type", default="f32", help="Weight type: f32 or bf16")
    parser.add_argument("--out", type=Path, default=Path("load"))
    parser.add_argument("--duration", default="8", help="Seconds per rate; 0 omits the curves")
    parser.add_argument("--rounds", default="2")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    args = parser.parse_args()
    Vllm.program, Vllm.preload, LlamaServer.program = args.vllm, args.vllm_preload, args.llama_server
    args.out.mkdir(parents=True, exist_ok=True)
    ours = Surprisal(args.binary, args.model, args.type, args.out)
    try:
        for peer in filter(lambda peer: peer.program, (Vllm, LlamaServer)):
            serving = peer(args.binary, args.model, args.type, args.out)
            try:
                compare(ours.url, serving, args, args.out / args.type / peer.name)
            finally:
                serving.close()
    finally:
        ours.close()


if __name__ == "__main__":
    main()
