"""Runs the Python recipes of docs/src/recipes.md against the server and compares their scores with transformers."""

import json
import math
import os
import pathlib
import re
import subprocess
import sys

from reference import assert_close

ROOT = pathlib.Path(__file__).parents[2]


def load(url, folder):
    """Executes every Python block of the page in the folder, and returns the names that they define."""
    page = (ROOT / "docs/src/recipes.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    names = {}
    before = os.getcwd()
    os.chdir(folder)
    try:
        exec(code.replace("http://127.0.0.1:8000", url), names)
    finally:
        os.chdir(before)
    return names


def run_estimate(url, binary, folder, bos):
    """Runs an estimate in the folder, whose saved answers a recipe reads."""
    (folder / "novel.txt").write_text("A clerk counted barrels, then counted them again.\n" * 200)
    command = [binary, "estimate", "novel.txt", "--url", url, "--bos", str(bos), "--windows", "4", "--splits", "2,4"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def check(url, model, binary, folder, reference):
    """Runs every recipe against the server, and compares the results with the reference."""
    run_estimate(url, binary, folder, reference.tokenizer.bos_token_id)
    recipes = load(url, folder)
    check_scores(recipes, reference)
    check_perplexity(recipes["perplexity"], reference)
    prompt = reference.encode("A clerk")
    completion = recipes["complete"]("A clerk", model, url)
    assert completion == reference.decode(reference.complete(prompt, 20)), completion
    check_saved_answers(recipes["surprisal_by_position"], folder / "surprisal-report")
    check_clustered(recipes["clustered"], folder / "surprisal-report")
    print("recipes: scores, perplexities and completions match transformers")


def check_scores(recipes, reference):
    encode, logprobs = reference.encode, reference.logprobs
    frame = recipes["surprisals"](" a dark night", context="It was")
    for row, logprob in zip(frame.itertuples(), logprobs(encode("It was"), encode(" a dark night")), strict=True):
        assert_close("surprisals", row.surprisal, -logprob)
    assert "".join(frame["token"]) == " a dark night"

    contexts, targets = ["It was", "He was"], [" a dark night", " the king"]
    for context, row in zip(contexts, recipes["score_matrix"](contexts, targets), strict=True):
        for target, score in zip(targets, row, strict=True):
            assert_close("score_matrix", score, sum(logprobs(encode(context), encode(target))))

    assert len(recipes["sums"]) == 1000
    assert_close("dataset", recipes["sums"][999], sum(logprobs(encode("Item 999 is"), encode(" here"))))


def check_perplexity(perplexity, reference):
    encode, logprobs = reference.encode, reference.logprobs
    ids = encode("A clerk counted barrels, then counted them again. " * 8)
    expected = math.exp(-sum(logprobs(ids[:1], ids[1:])) / (len(ids) - 1))
    text = reference.tokenizer.decode(ids)
    assert_close("perplexity, one window", perplexity(text, window=512, stride=511) / expected, 1)
    sliding = perplexity(text, window=48, stride=16)
    total = 0.0
    for start in range(1, len(ids), 16):
        total += sum(logprobs(ids[max(0, start - 32) : start], ids[start : start + 16]))
    assert_close("perplexity, sliding", sliding / math.exp(-total / (len(ids) - 1)), 1)


def check_clustered(clustered, report):
    for row in json.loads((report / "report.json").read_text())["rows"]:
        value, error = clustered(report, row["length"], row["ratio"])
        assert_close("clustered, value", value, row["direct"]["value"])
        assert_close("clustered, error", error, row["direct"]["error"])


def check_saved_answers(surprisal_by_position, report):
    by_position = surprisal_by_position(report)
    assert len(by_position) == 8 and (by_position > 0).all(), by_position
    [answers] = report.glob("answers-*")
    command = [sys.executable, ROOT / "bench/read_answers.py", answers]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    printed = {int(position): float(mean) for position, mean in re.findall(r"position +(\d+): +([\d.]+)", output)}
    assert printed, output
    for position, mean in printed.items():
        assert_close("read_answers.py", mean, by_position.iloc[position])
