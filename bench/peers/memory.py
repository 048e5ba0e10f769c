#!/usr/bin/env python3
"""Measures peak memory in surprisal and transformers, for one text of 8192 tokens and a vocabulary of 128256.

    cargo run --release -p surprisal-bench --bin random_llama -- /tmp/wide-llama 128256
    python3 bench/peers/memory.py target/release/surprisal /tmp/wide-llama

Needs torch and transformers. Each runs in a separate process. Prints the peak resident memory as Linux counts it
(VmHWM), and the rest without weights and KV cache.
"""

import json
import subprocess
import sys
from pathlib import Path

from cpu import Surprisal, tokens

LENGTH, CACHE_MIB = 8192, 1024
MIB = 1 << 20
THEIRS = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="sdpa").eval()
ids = torch.randint(3, model.config.vocab_size, (1, int(sys.argv[2])))
with torch.inference_mode():
    logits = model(ids, use_cache=False).logits[0]
    for first in range(0, len(logits) - 1, 512):
        part = logits[first:min(first + 512, len(logits) - 1)]
        part.gather(-1, ids[0, first + 1:first + 1 + len(part), None])[:, 0] - part.logsumexp(-1)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(status: str) -> float:
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def main() -> None:
    binary, folder = sys.argv[1], Path(sys.argv[2])
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    weights = (folder / "model.safetensors").stat().st_size
    server = Surprisal(binary, folder, "f32", folder, ["--cache-mib", str(CACHE_MIB)])
    server.score(tokens(vocab, 1, LENGTH))
    ours = peak(Path(f"/proc/{server.process.pid}/status").read_text())
    server.close()
    run = subprocess.run([sys.executable, "-c", THEIRS, str(folder), str(LENGTH)], capture_output=True, text=True, check=True)
    theirs = peak(run.stdout)
    print(f"weights {weights / MIB:.0f} MiB, vocabulary {vocab}, one text of {LENGTH} tokens, f32")
    print(f"surprisal     peak {ours / MIB:>6.0f} MiB: weights + cache of {CACHE_MIB} MiB + {(ours - weights) / MIB - CACHE_MIB:.0f} MiB")
    print(f"transformers  peak {theirs / MIB:>6.0f} MiB: weights + {(theirs - weights) / MIB:.0f} MiB")


if __name__ == "__main__":
    main()
