#!/usr/bin/env python3
"""Times 8 contexts of 1024 tokens x 64 targets of 64: one request, the same queries without sharing, and transformers.

    python3 bench/peers/pairs.py target/release/surprisal /tmp/random-llama

Needs torch and transformers. The queries without sharing have contexts that differ in their first token, so the cache
has none of them. For these and for transformers, a sample is timed and scaled up. transformers computes logits only for
the target.
"""

import json
import statistics
import sys
import time
import urllib.request
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from cpu import Surprisal, tokens

CONTEXTS, CONTEXT, TARGETS, TARGET = 8, 1024, 64, 64
SAMPLE, ROUNDS = 16, 3


def ask(url: str, body: dict) -> dict:
    request = urllib.request.Request(url + "/logprobs", json.dumps(body | {"bos": "none"}).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def main() -> None:
    binary, folder = sys.argv[1], Path(sys.argv[2])
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    server = Surprisal(binary, folder, "f32", folder, [])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    scale = CONTEXTS * TARGETS / SAMPLE
    shared, apart, theirs = [], [], []
    for _ in range(ROUNDS):
        contexts, targets = tokens(vocab, CONTEXTS, CONTEXT), [row[1:] for row in tokens(vocab, TARGETS, TARGET + 1)]
        start = time.perf_counter()
        answer = ask(server.url, {"contexts": contexts, "targets": targets, "pairs": "all"})
        shared.append(time.perf_counter() - start)
        queries = [(contexts[i % CONTEXTS], targets[i]) for i in range(SAMPLE)]
        distinct = [{"context": [3 + i, *context[1:]], "target": target} for i, (context, target) in enumerate(queries)]
        start = time.perf_counter()
        ask(server.url, {"queries": distinct})
        apart.append((time.perf_counter() - start) * scale)
        start = time.perf_counter()
        with torch.inference_mode():
            for context, target in queries:
                ids = torch.tensor([context + target])
                logits = model(ids, use_cache=False, logits_to_keep=TARGET + 1).logits[0, :-1]
                values = logits.gather(-1, ids[0, CONTEXT:, None])[:, 0] - logits.logsumexp(-1)
        theirs.append((time.perf_counter() - start) * scale)
        same = next(r for r in answer["results"] if r["pair"] == [(SAMPLE - 1) % CONTEXTS, SAMPLE - 1])
        assert abs(same["sum"] - values.double().sum().item()) < 1e-2, (same["sum"], values.sum())
    server.close()
    usage = answer["usage"]
    print(f"{CONTEXTS} contexts of {CONTEXT} x {TARGETS} targets of {TARGET}, f32; {ROUNDS} rounds, medians; usage {usage}")
    print(f"surprisal, one request       {statistics.median(shared):>7.1f} s")
    for name, times in (("surprisal, nothing shared", apart), ("transformers, query by query", theirs)):
        ratios = sorted(time / one for time, one in zip(times, shared))
        print(f"{name:<28} {statistics.median(times):>7.1f} s, {statistics.median(ratios):.1f} times ({ratios[0]:.1f} to {ratios[-1]:.1f})")


if __name__ == "__main__":
    main()
