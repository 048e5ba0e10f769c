"""Runs the Python recipes of docs/src/recipes.md against the server and compares their scores with transformers."""

import math
import os
import pathlib
import re
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).parents[2]
TOLERANCE = 1e-3


def load(url):
    """Executes every Python block of the page and returns the names that they define."""
    page = (ROOT / "docs/src/recipes.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    names = {}
    exec(code.replace("http://127.0.0.1:8000", url), names)
    return names


def close(name, found, expected):
    assert math.isclose(found, expected, rel_tol=0, abs_tol=TOLERANCE), (name, found, expected)


def estimate(url, binary, folder, bos):
    """Runs an estimate in the folder, whose saved answers a recipe reads."""
    (folder / "novel.txt").write_text("A clerk counted barrels, then counted them again.\n" * 200)
    command = [binary, "estimate", "novel.txt", "--url", url, "--bos", str(bos), "--windows", "4", "--splits", "2,4"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def run(url, model, binary, folder):
    tokenizer = AutoTokenizer.from_pretrained(model)
    estimate(url, binary, folder, tokenizer.bos_token_id)
    start = os.getcwd()
    os.chdir(folder)
    recipes = load(url)
    os.chdir(start)
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def encode(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    def logprobs(context, target):
        """Returns the log-probabilities of the target's tokens after the context, from transformers."""
        ids = torch.tensor(context + target)
        with torch.no_grad():
            table = torch.log_softmax(reference(ids[None]).logits[0].double(), -1)
        return [table[at - 1, ids[at]].item() for at in range(len(context), len(ids))]

    frame = recipes["surprisals"](" a dark night", context="It was")
    for row, logprob in zip(frame.itertuples(), logprobs(encode("It was"), encode(" a dark night")), strict=True):
        close("surprisals", row.surprisal, -logprob)
    assert "".join(frame["token"]) == " a dark night"

    contexts, targets = ["It was", "He was"], [" a dark night", " the king"]
    for context, row in zip(contexts, recipes["score_matrix"](contexts, targets), strict=True):
        for target, score in zip(targets, row, strict=True):
            close("score_matrix", score, sum(logprobs(encode(context), encode(target))))

    ids = encode("A clerk counted barrels, then counted them again. " * 8)
    expected = math.exp(-sum(logprobs(ids[:1], ids[1:])) / (len(ids) - 1))
    text = tokenizer.decode(ids)
    close("perplexity, one window", recipes["perplexity"](text, window=512, stride=511) / expected, 1)
    sliding = recipes["perplexity"](text, window=48, stride=16)
    total = 0.0
    for start in range(1, len(ids), 16):
        total += sum(logprobs(ids[max(0, start - 32) : start], ids[start : start + 16]))
    close("perplexity, sliding", sliding / math.exp(-total / (len(ids) - 1)), 1)

    assert len(recipes["sums"]) == 1000
    close("dataset", recipes["sums"][999], sum(logprobs(encode("Item 999 is"), encode(" here"))))

    completion = recipes["complete"]("A clerk", model, url)
    written = reference.generate(torch.tensor([encode("A clerk")]), max_new_tokens=20, do_sample=False, pad_token_id=0)[0]
    assert completion == tokenizer.decode(written[len(encode("A clerk")) :], skip_special_tokens=True), completion

    by_position = recipes["surprisal_by_position"](folder / "surprisal-report")
    assert len(by_position) == 8 and (by_position > 0).all(), by_position
    [answers] = (folder / "surprisal-report").glob("answers-*")
    command = [sys.executable, ROOT / "bench/read_answers.py", answers]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    printed = {int(position): float(mean) for position, mean in re.findall(r"position +(\d+): +([\d.]+)", output)}
    assert printed, output
    for position, mean in printed.items():
        close("read_answers.py", mean, by_position.iloc[position])
    print("recipes: scores, perplexities and completions match transformers")
