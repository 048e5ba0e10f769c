#!/usr/bin/env python3
"""Reads the saved answers of `surprisal estimate`; prints the surprisal of whole documents by position, in nats.

    pip install pyarrow numpy
    bench/read_answers.py surprisal-report/answers-*
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

# %% The origin of the answers, which each file records.
folder = Path(sys.argv[1])
facts = parquet.read_metadata(next(folder.glob("*.parquet"))).metadata
for name in ("model", "fingerprint", "config", "seed", "version"):
    print(f"{name:12} {facts[name.encode()].decode()}")

# %% One row per target token: step, kind (whole, crossed, marginal), x, y, split, position, logprob.
# A file's name has its first step, the step after its last one, and its checksum.
table = parquet.read_table(sorted(folder.glob("*.parquet")))
whole = table.filter(parquet.filters_to_expression([("kind", "=", "whole")]))

# %% Each document has one row per position.
positions = whole["position"].to_numpy()
surprisals = -whole["logprob"].to_numpy().astype(float)
documents = np.bincount(positions)
means = np.bincount(positions, surprisals) / documents
squares = np.bincount(positions, surprisals**2) / documents
errors = np.sqrt(np.maximum(squares - means**2, 0) / np.maximum(documents - 1, 1))

print(f"{table.num_rows} log-probabilities; surprisal of {documents[0]} whole documents, in nats:")
for position in sorted({0, *np.unique(np.logspace(0, np.log10(len(means)), 12).astype(int) - 1)}):
    print(f"position {position:6}: {means[position]:8.4f} +- {errors[position]:.4f}")
