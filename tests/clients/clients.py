"""Compares the results of lm-evaluation-harness and the openai client on the server with those of transformers.

`run` makes the environment and runs this: clients.py BINARY FOLDER
"""

import pathlib
import re
import subprocess
import sys

import checkpoint
import recipes
import tasks
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from openai import BadRequestError, OpenAI
from reference import TOLERANCE, Reference


class Server:
    """A server on a free port, which runs for the length of a `with` block."""

    def __init__(self, binary, model):
        command = [binary, "serve", "--model", model, "--port", "0", "--cache-mib", "64"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        for line in self.process.stderr:
            if found := re.search(r"serving .* on (http://\S+),", line):
                return found[1]
        raise RuntimeError("the server did not start")

    def __exit__(self, *_):
        self.process.terminate()
        log = self.process.stderr.read()
        if self.process.wait(timeout=60) != 0:
            raise RuntimeError(f"the server failed:\n{log}")


def evaluate(model, arguments, names, manager):
    """Returns the responses of each task, in the order of its documents."""
    results = simple_evaluate(
        model=model, model_args=arguments, tasks=names, task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    samples = {name: sorted(results["samples"][name], key=lambda sample: sample["doc_id"]) for name in names}
    return {name: [sample["resps"] for sample in samples[name]] for name in names}


def flat(responses):
    """Returns the numbers, flags and texts of nested responses as a flat list."""
    if isinstance(responses, (list, tuple)):
        return [leaf for part in responses for leaf in flat(part)]
    return [responses]


def compare(name, found, expected):
    """Compares numbers within the tolerance, all else exactly; returns the count and the largest difference."""
    found, expected = flat(found), flat(expected)
    assert len(found) == len(expected) > 0, (name, found, expected)
    worst = 0.0
    for ours, theirs in zip(found, expected):
        if isinstance(theirs, float):
            worst = max(worst, abs(ours - theirs))
        else:
            assert ours == theirs, (name, ours, theirs)
    assert worst < TOLERANCE, (name, worst)
    return len(found), worst


def harness(url, model, folder):
    names = tasks.write(folder)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    expected = evaluate("hf", {"pretrained": model, "dtype": "float32", "device": "cpu"}, names, manager)
    ways = {
        "token ids, remote tokenizer": {"num_concurrent": 4},
        "batches": {"batch_size": 4, "tokenizer_backend": "huggingface"},
    }
    for way, more in ways.items():
        arguments = {"model": model, "base_url": f"{url}/v1/completions", "max_length": 512, **more}
        found = evaluate("local-completions", arguments, names, manager)
        for name in names:
            count, worst = compare(name, found[name], expected[name])
            print(f"{name}, {way}: {count} values equal those of hf within {worst:.1e}")


def openai_client(url, model, reference):
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    assert [served.id for served in client.models.list()] == [model]
    prompt = tasks.SENTENCES[0]
    ids = reference.encode(prompt)
    written = reference.complete(ids, 20)
    whole = ids + written
    logprobs = reference.distributions(whole)
    greedy = {"model": model, "prompt": ids, "max_tokens": 20, "temperature": 0}

    answer = client.completions.create(**greedy, echo=True, logprobs=3)
    choice = answer.choices[0]
    assert choice.text == reference.decode(whole), choice.text
    assert answer.usage.completion_tokens == len(written)
    lists = choice.logprobs
    assert lists.token_logprobs[0] is None and len(lists.token_logprobs) == len(whole)
    worst = 0.0
    for at in range(1, len(whole)):
        worst = max(worst, abs(lists.token_logprobs[at] - logprobs[at - 1, whole[at]].item()))
        best = logprobs[at - 1].max().item()
        worst = max(worst, abs(max(lists.top_logprobs[at].values()) - best))
    assert worst < TOLERANCE, worst
    print(f"openai: {len(whole)} log-probabilities and alternatives equal those of transformers within {worst:.1e}")

    pieces = list(client.completions.create(**greedy, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].text for piece in pieces if piece.choices)
    assert text == reference.decode(written), text
    assert pieces[-1].usage.completion_tokens == len(written)
    stop = text[5:8]
    assert client.completions.create(**greedy, stop=stop).choices[0].text == text[: text.index(stop)]

    drawn = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 1, "top_p": 0.95}
    draw = lambda seed: [choice.text for choice in client.completions.create(**drawn, seed=seed, n=3).choices]
    assert draw(1) == draw(1) and draw(1) != draw(9) and len(set(draw(1))) > 1
    assert draw(1)[1] == draw(2)[0], "completion i of n must use the seed plus i"
    try:
        client.completions.create(**{**greedy, "max_tokens": 1000})
    except BadRequestError as error:
        assert error.response.json()["field"] == "prompt[0]", error
    else:
        raise AssertionError("a completion that does not fit was not rejected")
    print("openai: streams, stops, seeds and errors are as the client expects")


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    model = str(folder / "tiny")
    checkpoint.write(model)
    reference = Reference(model)
    with Server(binary, model) as url:
        openai_client(url, model, reference)
        (folder / "tasks").mkdir()
        harness(url, model, folder / "tasks")
        recipes.check(url, model, binary, folder, reference)


main()
