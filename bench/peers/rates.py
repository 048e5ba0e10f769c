#!/usr/bin/env python3
"""How near the whole model comes to the machine's best matrix product of the same type: ours and PyTorch's, in one run.

    python3 bench/peers/rates.py target/release/surprisal /tmp/random-llama

Needs torch. PyTorch's rate is that of its best shape among the model's own and a large square one; the whole model's counts products and
attention of one text of 512 tokens, HTTP included. Our own products' rates are Criterion's (`cargo bench --bench kernels`).
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from cpu import Surprisal, tokens

LENGTH, ROUNDS = 512, 9
SHAPES = [(512, 768, 4096), (512, 2048, 768), (512, 768, 32000), (2048, 2048, 2048)]


def product_times(dtype: torch.dtype) -> list[float]:
    """Operations a second of each shape, once."""
    rates = []
    for rows, depth, outputs in SHAPES:
        a, w = torch.randn(rows, depth).to(dtype), torch.randn(outputs, depth).to(dtype)
        torch.nn.functional.linear(a, w)
        start = time.perf_counter()
        torch.nn.functional.linear(a, w)
        rates.append(2 * rows * depth * outputs / (time.perf_counter() - start))
    time.sleep(0.5)  # PyTorch's threads wait busily for a while
    return rates


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
        rates, products = [], []
        for _ in range(ROUNDS):
            products.append(product_times(dtype))
            batch = tokens(vocab, 1, LENGTH)
            start = time.perf_counter()
            server.score(batch)
            rates.append(operations / (time.perf_counter() - start))
        server.close()
        rate = statistics.median(rates)
        best = max(statistics.median(shape) for shape in zip(*products))
        print(f"{kind}: whole model {rate / 1e9:.0f} GFLOP/s, PyTorch's best product {best / 1e9:.0f} (medians): {rate / best:.0%}")


if __name__ == "__main__":
    main()
