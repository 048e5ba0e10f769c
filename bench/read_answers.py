#!/usr/bin/env python3
"""Reads the saved answers of `surprisal estimate`; prints the surprisal of whole documents by position, in nats.

    pip install pyarrow numpy
    bench/read_answers.py surprisal-report/answers-*

Errors are standard errors over texts (whole files or rows, even if they were cut into pieces), or over documents if
there is only one text: sqrt(sum((S - n m)^2 / (1 - n/N))) / N for texts with n of the N documents and the sum S.
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

# %% One row per target token: step, kind, x, y, split, position, logprob. The kinds are whole, crossed, marginal, joint
# and joint_marginal; later versions may add others. A file's name has its first step, the step after its last one, and
# its checksum.
table = parquet.read_table(sorted(folder.glob("*.parquet")))
whole = table.filter(parquet.filters_to_expression([("kind", "=", "whole")]))

# %% The cluster of each document: its text, or the document itself if there is only one text. Pieces of one text have the
# same file and row. Sampled documents have neither, and are texts of their own.
tokens = parquet.read_table(folder / "documents/tokens.parquet", columns=["document", "text"])
texts = parquet.read_table(folder / "documents/texts.parquet").to_pylist()
origins = {text["text"]: (text["file"], text["row"]) for text in texts if text["file"] is not None}
pieces = dict(zip(tokens["document"].to_numpy(), tokens["text"].to_numpy()))
names = [origins.get(pieces[document], (None, pieces[document])) for document in sorted(pieces)]
if len(set(names)) == 1:
    names = range(len(names))
numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
clusters = np.array([numbers[name] for name in names])

# %% Each document has one row per position.
positions, documents = whole["position"].to_numpy(), whole["y"].to_numpy()
surprisals = np.zeros((len(names), positions.max() + 1))
surprisals[documents, positions] = -whole["logprob"].to_numpy().astype(float)
means = surprisals.mean(axis=0)
sizes = np.bincount(clusters)
sums = np.zeros((len(sizes), len(means)))
np.add.at(sums, clusters, surprisals - means)
parts = sizes / len(names)
errors = np.sqrt((sums**2 / (1 - parts)[:, None]).sum(axis=0)) / len(names)

print(f"{table.num_rows} log-probabilities; surprisal of {len(names)} documents, in nats:")
for position in sorted({0, *np.unique(np.logspace(0, np.log10(len(means)), 12).astype(int) - 1)}):
    print(f"position {position:6}: {means[position]:8.4f} +- {errors[position]:.4f}")
