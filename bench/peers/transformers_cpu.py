#!/usr/bin/env python3
"""Compares the speed of surprisal's server and transformers on one checkpoint, in turns, on this machine's CPU, in f32.

    cargo run --release -p surprisal-bench --bin random_llama -- /tmp/random-llama
    cargo run --release -- serve --model /tmp/random-llama --port 8111 &
    python3 bench/peers/transformers_cpu.py /tmp/random-llama http://127.0.0.1:8111

Needs torch and transformers. Every round scores fresh random tokens with both, so no cache helps. transformers runs in
its best configuration: SDPA attention, inference mode and all cores. Prints medians of tokens per second, the median
and range of their ratios, and the largest difference of a log-probability.
"""

import json
import statistics
import sys
import time
import urllib.request

import torch
from transformers import AutoModelForCausalLM

ROUNDS = 7


def ask(url: str, batch: torch.Tensor) -> list[list[float]]:
    """Returns the server's log-probabilities of each row after its first token."""
    queries = [{"context": row[:1], "target": row[1:]} for row in batch.tolist()]
    body = json.dumps({"queries": queries, "detail": "tokens"}).encode()
    request = urllib.request.Request(url + "/logprobs", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return [result["logprobs"] for result in json.load(response)["results"]]


def peer(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Returns the same log-probabilities from transformers."""
    with torch.inference_mode():
        logits = model(batch).logits[:, :-1]
        targets = batch[:, 1:, None]
        return logits.gather(-1, targets)[..., 0] - torch.logsumexp(logits, -1)


def main() -> None:
    folder, url = sys.argv[1:3]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    vocab = model.config.vocab_size
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {ROUNDS} rounds, alternating")
    print(f"{'T':>5} {'batch':>5} {'surprisal':>10} {'transformers':>12} {'ratio':>6}  (range)  largest difference")
    for length, rows in [(128, 1), (128, 8), (512, 1), (512, 8), (2048, 1), (2048, 2)]:
        ours, theirs, ratios, worst = [], [], [], 0.0
        for round_ in range(ROUNDS + 1):
            batch = torch.randint(3, vocab, (rows, length))
            batch[:, 0] = 0
            start = time.perf_counter()
            got = ask(url, batch)
            middle = time.perf_counter()
            want = peer(model, batch)
            end = time.perf_counter()
            worst = max(worst, (torch.tensor(got) - want).abs().max().item())
            if round_ > 0:  # the first round is a warm-up
                tokens = rows * length
                ours.append(tokens / (middle - start))
                theirs.append(tokens / (end - middle))
                ratios.append(ours[-1] / theirs[-1])
        ratio = f"{statistics.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{length:>5} {rows:>5} {statistics.median(ours):>10.0f} {statistics.median(theirs):>12.0f} {ratio}  {worst:.1e}")


if __name__ == "__main__":
    main()
