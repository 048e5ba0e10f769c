"""Runs clients of other projects against the server, and compares their results with those of transformers.

`run` makes the environment and runs this: clients.py BINARY FOLDER [CHECK ...]
"""

import importlib
import pathlib
import sys
import time
import traceback

import checkpoint
from reference import Reference
from server import Server

# Checks on the checkpoint `plain`: module, function and its arguments.
CHECKS = {
    "openai for Python": ("openai_sdk", "check_python", ("url", "model", "reference")),
    "openai for Node": ("openai_sdk", "check_node", ("url", "model", "reference")),
    "litellm": ("frameworks", "check_litellm", ("url", "model", "reference")),
    "langchain": ("frameworks", "check_langchain", ("url", "model", "reference")),
    "inspect-ai": ("frameworks", "check_inspect", ("url", "model", "reference", "folder")),
    "load generators": ("load_generators", "check", ("url", "model", "reference")),
    "recipes": ("recipes", "check", ("url", "model", "binary", "folder", "reference")),
}
# Checks that start a server for each kind of checkpoint, and take the binary and a folder.
ALL_KINDS = {"harness": "harness", "tokenization": "tokenization"}


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    chosen = sys.argv[3:] or [*CHECKS, *ALL_KINDS]
    model = str(folder / "plain")
    checkpoint.write(model)
    values = {"model": model, "reference": Reference(model), "binary": binary}
    failed = []
    with Server(binary, model) as url:
        for name in filter(CHECKS.__contains__, chosen):
            module, function, words = CHECKS[name]
            known = values | {"url": url, "folder": make_folder(folder / name)}
            attempt(name, module, function, [known[word] for word in words], failed)
    for name in filter(ALL_KINDS.__contains__, chosen):
        attempt(name, ALL_KINDS[name], "check", [binary, make_folder(folder / name)], failed)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def make_folder(folder):
    """Creates a folder; returns it."""
    folder.mkdir()
    return folder


def attempt(name, module, function, arguments, failed):
    """Runs a check, and continues after a failure, so that one run shows all of them."""
    start = time.monotonic()
    try:
        getattr(importlib.import_module(module), function)(*arguments)
    except Exception:
        traceback.print_exc()
        failed.append(name)
    print(f"-- {name} took {time.monotonic() - start:.0f} s", flush=True)


main()
