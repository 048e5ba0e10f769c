#!/usr/bin/env python3
"""Measures the error of 16-bit and 8-bit scoring, and of transformers' own bf16, on every golden checkpoint.

    cargo build --release && python3 bench/peers/precision.py target/release/surprisal

Needs torch, transformers and safetensors. Each checkpoint's weights are rounded to bf16 first; the reference is
transformers in float64 with those rounded weights, so the errors are those of arithmetic, and for int8 also of rounding
weights. Prints the largest error of any log-probability, in nats, at T = 512 and at T = 2048, as a Markdown table.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
OURS = {
    "bf16 weights, f32": ["--dtype", "bf16"],
    "bf16 weights, bf16": ["--dtype", "bf16", "--activations", "bf16"],
    "int8 weights, f32": ["--dtype", "int8"],
    "int8 weights, bf16": ["--dtype", "int8", "--activations", "bf16"],
}


def rounded(fixture: Path, folder: Path) -> None:
    """Writes the checkpoint with bf16 weights, and a tokenizer, which the server needs."""
    for file in sorted(fixture.glob("*.safetensors*")):
        if file.suffix == ".json":
            shutil.copy(file, folder)
        else:
            save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, folder / file.name, {"format": "pt"})
    config = json.loads((fixture / "config.json").read_text())
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    words = {f"t{token}": token for token in range(config["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "t2"}}))


def theirs(folder: Path, dtype: torch.dtype, tokens: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if dtype == torch.float64 else dtype,
                                                 attn_implementation="eager").eval()
    if dtype == torch.float64:
        model = model.double()
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        rows = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
    return rows.gather(-1, ids[0, 1:, None])[:, 0]


def ours(binary: str, folder: Path, flags: list[str], texts: list[list[int]]) -> list[torch.Tensor]:
    serve = [binary, "serve", "--model", str(folder), "--port", "0", *flags]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
            queries = [{"context": tokens[:1], "target": tokens[1:]} for tokens in texts]
            body = json.dumps({"queries": queries, "detail": "tokens", "bos": "none"}).encode()
            request = urllib.request.Request(url.rstrip(":") + "/logprobs", body, {"content-type": "application/json"})
            with urllib.request.urlopen(request) as response:
                return [torch.tensor(result["logprobs"]).double() for result in json.load(response)["results"]]
        finally:
            server.terminate()


def main() -> None:
    logging.disable_progress_bar()
    binary = sys.argv[1]
    names = list(OURS)
    print(f"torch {torch.__version__}; T = 512 / T = 2048\n")
    print("| checkpoint | transformers bf16 | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 2) + "|")
    for fixture in sorted(path.parent for path in GOLDEN.glob("*/expected.json")):
        if "-fp8-" in fixture.name:
            continue
        texts = [case["tokens"] for case in json.loads((fixture / "expected.json").read_text())["cases"]]
        with tempfile.TemporaryDirectory() as folder:
            rounded(fixture, Path(folder))
            exact = [theirs(Path(folder), torch.float64, tokens) for tokens in texts]
            runs = [[theirs(Path(folder), torch.bfloat16, tokens) for tokens in texts]]
            runs += [ours(binary, Path(folder), flags, texts) for flags in OURS.values()]
        cells = [" / ".join(f"{(got - want).abs().max():.1e}" for got, want in zip(run, exact)) for run in runs]
        print(f"| {fixture.name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
