"""Compares lm-evaluation-harness on the server with its own `hf` backend, on checkpoints with different tokenizers."""

import pathlib
import re

import checkpoint
import tasks
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import simple_parse_args_string
from reference import TOLERANCE
from server import Server

ROOT = pathlib.Path(__file__).parents[2]


def documented(page):
    """Returns the arguments of the page's commands, with placeholders for the model and the address."""
    commands = re.findall(r"^lm_eval --model local-completions --model_args (\S+) --tasks", (ROOT / page).read_text(), re.M)
    for arguments in commands:
        assert "model=NAME," in arguments and "base_url=http://127.0.0.1:8000/" in arguments, (page, arguments)
    return [arguments.replace("model=NAME", "model={model}").replace("http://127.0.0.1:8000", "{url}") for arguments in commands]


class Comparison:
    """The local task files, evaluated by `hf` and through the server, for one kind of checkpoint after the other."""

    def __init__(self, folder):
        self.names = tasks.write(folder)
        self.manager = TaskManager(include_path=str(folder), include_defaults=False)

    def evaluate(self, model, arguments, names, chat=False):
        """Returns the responses of each task, in the order of its documents."""
        results = simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=names,
            task_manager=self.manager,
            apply_chat_template=chat,
            bootstrap_iters=0,
            log_samples=True,
        )
        samples = {name: sorted(results["samples"][name], key=lambda sample: sample["doc_id"]) for name in names}
        return {name: [sample["resps"] for sample in samples[name]] for name in names}

    def expected(self, model, names, chat=False, max_length=512):
        arguments = {"pretrained": model, "dtype": "float32", "device": "cpu", "max_length": max_length}
        return self.evaluate("hf", arguments, names, chat)

    def run(self, title, arguments, expected, chat=False):
        """Evaluates the tasks of `expected` through the server, and compares all responses."""
        found = self.evaluate("local-completions", simple_parse_args_string(arguments), list(expected), chat)
        total, worst = 0, 0.0
        for name, responses in expected.items():
            count, difference = compare(f"{name}, {title}", found[name], responses)
            total, worst = total + count, max(worst, difference)
        print(f"harness: {title}: {total} values equal those of hf within {worst:.1e}")


def flat(responses):
    """Returns the numbers, flags and texts of nested responses as a flat list."""
    if isinstance(responses, (list, tuple)):
        return [leaf for part in responses for leaf in flat(part)]
    return [responses]


def compare(name, found, expected):
    """Compares numbers within the tolerance, all else exactly; returns the count and the largest difference.

    `hf` decodes a completion without its prompt, so that the decoder of some tokenizers strips the first space.
    """
    found, expected = flat(found), flat(expected)
    assert len(found) == len(expected) > 0, (name, found, expected)
    worst = 0.0
    for ours, theirs in zip(found, expected):
        if isinstance(theirs, float):
            worst = max(worst, abs(ours - theirs))
        elif isinstance(theirs, str):
            assert ours.removeprefix(" ") == theirs.removeprefix(" "), f"{name}: {ours!r} is not {theirs!r}"
        else:
            assert ours == theirs, f"{name}: {ours} is not {theirs}"
    assert worst < TOLERANCE, f"{name}: the results differ from hf by up to {worst:.3g} nats"
    return len(found), worst


def check(binary, folder):
    """Compares every task on every kind of checkpoint."""
    [command] = documented("README.md")
    [same, local] = documented("docs/src/recipes.md")
    assert same == command, "README.md and recipes.md document different commands"
    comparison = Comparison(folder)
    for kind, facts in checkpoint.KINDS.items():
        model = str(folder / kind)
        checkpoint.write(model, kind)
        with Server(binary, model) as url:
            ours, with_files = (arguments.format(model=model, url=url) for arguments in (command, local))
            if facts["specials"][0] == facts["names"].get("bos_token"):
                ours += ",custom_prefix_token_id=0"
            expected = comparison.expected(model, comparison.names)
            title = f"checkpoint {kind}"
            comparison.run(f"{title}, README's command", f"{ours},max_length=512", expected)
            comparison.run(f"{title}, concurrent batches", f"{ours},max_length=512,batch_size=4,num_concurrent=4", expected)
            comparison.run(f"{title}, the tokenizer's files", f"{with_files},max_length=512,num_concurrent=4", expected)
            if kind == "other-eos":
                check_variants(comparison, model, with_files)


def check_variants(comparison, model, ours):
    """Checks the page's advice on texts longer than `max_length`, and on chat templates."""
    expected = comparison.expected(model, comparison.names[:3], max_length=30)
    comparison.run("long texts, a max_length larger by 2 than that of hf", f"{ours},max_length=32", expected)
    expected = comparison.expected(model, comparison.names[:1], chat=True)
    without = ours.replace(",add_bos_token=True", "")
    assert without != ours
    comparison.run("a chat template that writes BOS, without add_bos_token", f"{without},max_length=512", expected, chat=True)
