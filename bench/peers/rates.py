#!/usr/bin/env python3
"""Compares the rate of the whole model with the best matrix product of the same type, of PyTorch or surprisal.

    cargo build --release -p surprisal && cargo build --release -p surprisal-bench --bin products
    python3 bench/peers/rates.py target/release/surprisal /tmp/random-llama

Both run in turns. Needs torch, and the binary `products` next to the first one. The rate of products is that of the
best shape among the model's own and a large square one, the best of a few runs per round. The rate of the whole model
counts products and attention of one text of 512 tokens, with HTTP included in the time.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from cpu import Surprisal, tokens

LENGTH, ROUNDS, RUNS = 512, 7, 5
SHAPES = [(512, 768, 4096), (512, 2048, 768), (512, 768, 32000), (2048, 2048, 2048)]


def torch_rates(dtype: torch.dtype) -> list[float]:
    """Returns the operations per second of each shape, the best of a few runs."""
    rates = []
    for rows, depth, outputs in SHAPES:
        a, w = torch.randn(rows, depth).to(dtype), torch.randn(outputs, depth).to(dtype)
        torch.nn.functional.linear(a, w)
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            torch.nn.functional.linear(a, w)
            seconds.append(time.perf_counter() - start)
        rates.append(2 * rows * depth * outputs / min(seconds))
    time.sleep(0.5)  # PyTorch's threads spin for a while
    return rates


def our_rates(binary: str, kind: str) -> list[float]:
    command = [Path(binary).with_name("products"), kind, *("x".join(map(str, shape)) for shape in SHAPES)]
    return [float(line) for line in subprocess.check_output(command, text=True).split()]


def main() -> None:
    binary, folder = sys.argv[1], Path(sys.argv[2])
    config = json.loads((folder / "config.json").read_text())
    layers, hidden, vocab = config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]
    width = config["num_key_value_heads"] * config["head_dim"]
    weights = layers * (2 * hidden * hidden + 2 * hidden * width + 3 * hidden * config["intermediate_size"]) + hidden * vocab
    operations = LENGTH * (2 * weights + 4 * layers * hidden * (LENGTH + 1) / 2)
    for kind, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        server = Surprisal(binary, folder, kind, folder, ["--cache-mib", "512"])
        server.score(tokens(vocab, 1, LENGTH))
        rates, theirs, ours = [], [], []
        for _ in range(ROUNDS):
            theirs.append(torch_rates(dtype))
            ours.append(our_rates(binary, kind))
            seconds = []
            for _ in range(RUNS):
                batch = tokens(vocab, 1, LENGTH)
                start = time.perf_counter()
                server.score(batch)
                seconds.append(time.perf_counter() - start)
            rates.append(operations / min(seconds))
        server.close()
        rate = statistics.median(rates)
        best = {name: max(statistics.median(shape) for shape in zip(*all)) for name, all in (("PyTorch", theirs), ("ours", ours))}
        shares = sorted(one / max(their, our) for one, their, our in zip(rates, map(max, theirs), map(max, ours)))
        said = ", ".join(f"{name} {best[name] / 1e9:.0f}" for name in best)
        print(f"{kind}: whole model {rate / 1e9:.0f} GFLOP/s; best product: {said} (medians of {ROUNDS} rounds)")
        print(f"  of the best product in the same round: {statistics.median(shares):.0%} ({shares[0]:.0%} to {shares[-1]:.0%})")


if __name__ == "__main__":
    main()
