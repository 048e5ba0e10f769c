#!/usr/bin/env python3
"""Measures the cost of a token in texts of 128 to 32768 tokens, fits a line, and plots both.

    python3 bench/peers/lengths.py target/release/surprisal /tmp/random-llama lengths.svg

Needs matplotlib and torch. The line has two parameters: a token costs a + b * T, and attends to T / 2 tokens on
average.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from cpu import Surprisal, tokens

LENGTHS = [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]


def main() -> None:
    binary, folder, out = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    config = json.loads((folder / "config.json").read_text())
    server = Surprisal(binary, folder, "f32", folder, ["--cache-mib", "2048"])
    server.score(tokens(config["vocab_size"], 1, 512))
    costs = []
    for length in LENGTHS:
        times = []
        for _ in range(5 if length <= 2048 else 1):
            batch = tokens(config["vocab_size"], 1, length)
            start = time.perf_counter()
            server.score(batch)
            times.append(time.perf_counter() - start)
        costs.append(float(np.median(times)) / length)
    server.close()
    layers, hidden, width = config["num_hidden_layers"], config["hidden_size"], config["num_key_value_heads"] * config["head_dim"]
    products = layers * (2 * hidden * hidden + 2 * hidden * width + 3 * hidden * config["intermediate_size"]) + hidden * config["vocab_size"]
    lengths = np.array(LENGTHS)
    # The fit minimizes relative errors, so that short texts count as much as long ones.
    weights = 1 / np.array(costs)
    (a, b), *_ = np.linalg.lstsq(np.stack([weights, lengths * weights], 1), np.array(costs) * weights, rcond=None)
    print(f"a token costs {a * 1e6:.0f} us + {b * 1e9:.1f} ns x T: {2 * products / a / 1e9:.0f} GFLOP/s in products, "
          f"{2 * layers * hidden / b / 1e9:.0f} GFLOP/s in attention")
    for length, cost in zip(LENGTHS, costs):
        print(f"T = {length:>5}: {cost * 1e6:>6.0f} us per token, the line predicts {(a + b * length) * 1e6:.0f}")
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    figure, axis = pyplot.subplots(figsize=(5.5, 3.5))
    axis.plot(lengths, np.array(costs) * 1e6, "o", label="measured")
    axis.plot(lengths, (a + b * lengths) * 1e6, "-", label=f"{a * 1e6:.0f} us + {b * 1e9:.1f} ns x T")
    axis.set(xscale="log", yscale="log", xlabel="tokens per text (T)", ylabel="microseconds per token")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(out)


if __name__ == "__main__":
    main()
