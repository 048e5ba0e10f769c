#!/usr/bin/env python3
"""Times lm-evaluation-harness on multiple-choice questions with shared contexts: surprisal, `hf` and vLLM, alternately.

    pip install "lm_eval[api]==0.4.13" torch transformers accelerate
    python3 bench/peers/harness.py target/release/surprisal SmolLM2-135M-Instruct book.txt --out /tmp/harness

Each question has a passage of 200 to 400 tokens from the books and four options; four questions share a passage. Each
run is a separate process with a new server, so that the cache is empty. The time of a run includes tokenization,
requests and metrics, but not imports, loading the model or starting the server. All runs compute in f32, and must agree
on every option's log-probability.

vLLM's CPU build needs a different torch: --vllm names its program, and --vllm-preload its libraries (as in load.py).
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cpu import Surprisal, Vllm

TASK = """task: passages
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: "\\n"
metric_list:
  - metric: acc
"""
# Maximum length of a text; the questions are shorter.
LONGEST = 2048
QUESTIONS_PER_PASSAGE = 4
OPTIONS = 4
# The largest allowed difference of an option's log-probability between two engines, in nats.
TOLERANCE = 1e-2
# The largest batch that `hf` may choose for batch_size=auto: at the default of 64, the logits alone take 6 GB.
LARGEST_BATCH = 16


def questions(books: list[Path], passages: int) -> list[dict]:
    """Returns questions about passages at seeded random places of the books: which line is from the passage?"""
    words = [word for book in books for word in book.read_text(encoding="utf-8-sig").split()]
    dice = random.Random(7)
    rows = []
    for _ in range(passages):
        # English prose has 1.3 tokens a word.
        length = dice.randint(170, 280)
        start = dice.randrange(len(words) - length)
        passage = words[start:start + length]
        for number in range(1, QUESTIONS_PER_PASSAGE + 1):
            answer = dice.randrange(OPTIONS)
            options = [line(words, dice) for _ in range(OPTIONS)]
            options[answer] = line(passage, dice)
            context = f"{' '.join(passage)}\n\nQuestion {number}: Which line is from this passage?\nAnswer:"
            rows.append({"context": context, "options": options, "answer": answer})
    return rows


def line(words: list[str], dice: random.Random) -> str:
    start = dice.randrange(len(words) - 12)
    return " ".join(words[start:start + 12])


def write_task(folder: Path, rows: list[dict]) -> None:
    data = folder / "passages.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "passages.yaml").write_text(TASK.format(data=data))


def evaluate(kind: str, arguments: str, batch: str, folder: str) -> None:
    """Runs one evaluation in this process; writes its seconds, accuracy and log-probabilities to standard output."""
    from lm_eval import simple_evaluate
    from lm_eval.api.registry import get_model
    from lm_eval.tasks import TaskManager
    model = get_model(kind).create_from_arg_string(arguments, {"batch_size": batch, "max_batch_size": LARGEST_BATCH})
    manager = TaskManager(include_path=folder, include_defaults=False)
    start = time.monotonic()
    results = simple_evaluate(model=model, tasks=["passages"], task_manager=manager, bootstrap_iters=0, log_samples=True)
    seconds = time.monotonic() - start
    samples = sorted(results["samples"]["passages"], key=lambda sample: sample["doc_id"])
    logprobs = [response[0][0] for sample in samples for response in sample["resps"]]
    accuracy = results["results"]["passages"]["acc,none"]
    print(json.dumps({"seconds": seconds, "accuracy": accuracy, "logprobs": logprobs}))


def run(python: str, folder: Path, kind: str, arguments: str, batch: str = "1") -> dict:
    """Runs one evaluation in a process of its own."""
    command = [python, __file__, "--evaluate", kind, arguments, batch, str(folder)]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "TQDM_DISABLE": "1",
                        "TOKENIZERS_PARALLELISM": "false"}
    with (folder / "lm_eval.log").open("a") as log:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    if done.returncode != 0:
        raise SystemExit(f"lm_eval exited with status {done.returncode}; see {folder / 'lm_eval.log'}")
    return json.loads(done.stdout.splitlines()[-1])


def with_server(start, concurrent: int):
    """Returns a contender: the harness on a server that starts for this run."""
    def contender(args: argparse.Namespace) -> dict:
        server = start(str(args.binary), args.model, "f32", args.out)
        try:
            # Send one request, so that the first one of the harness does not wait for anything that happens once.
            server.score([[1, 2, 3]])
            arguments = (f"model={args.model},base_url={server.url}/v1/completions,tokenizer_backend=huggingface,"
                         f"add_bos_token=True,num_concurrent={concurrent},max_length={LONGEST}")
            return run(sys.executable, args.out, "local-completions", arguments)
        finally:
            server.close()
    return contender


def with_hf(batch: str):
    def contender(args: argparse.Namespace) -> dict:
        return run(sys.executable, args.out, "hf", f"pretrained={args.model},dtype=float32,device=cpu,max_length={LONGEST}", batch)
    return contender


def report(found: dict[str, list[dict]], rows: int) -> None:
    """Prints each contender's seconds, and its ratios to surprisal, round by round."""
    ours = next(iter(found))
    truth = found[ours][0]["logprobs"]
    print(f"{rows} questions, {len(truth)} options; {len(found[ours])} runs each, alternately: median (lowest to highest)")
    print(f"{'':<14} {'seconds':<22} {'ratio':<20} {'accuracy':<9} largest difference, nats")
    for name, runs in found.items():
        seconds = [one["seconds"] for one in runs]
        ratios = [one["seconds"] / first["seconds"] for one, first in zip(runs, found[ours])]
        worst = max(abs(a - b) for one in runs for a, b in zip(one["logprobs"], truth, strict=True))
        assert worst < TOLERANCE, f"{name} differs from {ours} by {worst:.3g} nats"
        print(f"{name:<14} {spread(seconds, 1):<22} {spread(ratios, 2):<20} {runs[0]['accuracy']:<9.3f} {worst:.1e}")


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    if sys.argv[1:2] == ["--evaluate"]:
        return evaluate(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("model", type=Path, help="Folder of a checkpoint")
    parser.add_argument("books", type=Path, nargs="+", help="Text files")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the questions, the results and logs")
    parser.add_argument("--passages", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrent", type=int, default=8, help="Requests that the harness has open at a server")
    parser.add_argument("--batches", default="1,8,auto", help="Batch sizes of hf")
    parser.add_argument("--vllm")
    parser.add_argument("--vllm-preload")
    args = parser.parse_args()
    args.out, args.model = args.out.resolve(), args.model.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = questions(args.books, args.passages)
    write_task(args.out, rows)
    Vllm.program, Vllm.preload, Vllm.longest = args.vllm, args.vllm_preload, LONGEST
    contenders = {"surprisal": with_server(Surprisal, args.concurrent)}
    if args.vllm:
        contenders["vllm"] = with_server(Vllm, args.concurrent)
    contenders |= {f"hf, batch {batch}": with_hf(batch) for batch in args.batches.split(",")}
    found = {name: [] for name in contenders}
    for number in range(args.rounds):
        for name, contender in contenders.items():
            found[name].append(contender(args))
            print(f"round {number + 1}, {name}: {found[name][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
            (args.out / "results.json").write_text(json.dumps(found))
    report(found, len(rows))


main()
