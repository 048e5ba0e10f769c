"""Makes the calls and allocations of the program fail one by one, and checks each outcome.

`run` makes the checkpoints and runs this: faults.py BINARY FOLDER [OPTIONS]
"""

import argparse
import collections
import contextlib
import dataclasses
import itertools
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor

import library
import points
import program
import routes
import tasks

# Size from which each allocation is a point of its own, in bytes.
LARGE = 1 << 20
# Runs at a time. They mostly wait.
WORKERS = 3


def main():
    options = parse_options()
    folder = options.folder.resolve()
    runner = Runner(options, folder)
    with contextlib.ExitStack() as stack:
        for task, size in make_tasks(runner.subject, folder, options, stack):
            runner.try_all(task, size)
    if runner.bad:
        raise SystemExit("\n".join(["failed:", *runner.bad]))
    print(f"{runner.runs} runs with a fault: each gave an error or the same result")


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--full", action="store_true", help="try more calls of each point, with all errors")
    parser.add_argument("--lasting", action="store_true", help="let allocations fail for ever, instead of once")
    parser.add_argument("--tasks", default="serve,estimate,merge,memory", help="names of tasks, separated by commas")
    parser.add_argument("--only", default="", help="try only points that contain this text")
    return parser.parse_args()


def make_tasks(subject, folder, options, stack):
    """Yields tasks, each with the size of the allocations that are points; None if calls are the points."""
    names = options.tasks.split(",")
    served = folder / "served"
    shutil.copytree(folder / "model", served / "model")
    if "serve" in names:
        yield tasks.Serving(subject, served, routes.REQUESTS), None
    large = folder / "large"
    shutil.copytree(folder / "large-model", large / "model")
    if "memory" in names:
        yield tasks.Serving(subject, large, routes.REQUESTS[3:4]), LARGE
        yield tasks.Serving(subject, served, routes.LARGE), LARGE
    if not {"estimate", "merge", "memory"} & set(names):
        return
    server, port = subject.serve(served, None, "--cache-mib", "64")
    stack.callback(lambda: (server.kill(), server.wait()))
    program.wait_until_ready(server, port)
    for name in ["estimated", "merged"]:
        (folder / name).mkdir()
        tasks.write_experiment(folder / name, f"http://127.0.0.1:{port}")
    for shard in ["1", "2"]:
        arguments = ["estimate", "experiment.toml", "--out", shard, "--shard", f"{shard}/2"]
        done = subject.run(folder / "merged", None, *arguments)
        assert done[0] == 0, done
    # Runs link the files of their template, and write these.
    for name in ["stdout", "stderr"]:
        (folder / "merged" / name).unlink()
    for name, task in [("estimated", tasks.Estimate), ("merged", tasks.Merge)]:
        if task.name in names:
            yield task(subject, folder / name), None
        if "memory" in names:
            yield task(subject, folder / name), LARGE // 8


class Runner:
    """Runs tasks with faults, and prints the outcomes."""

    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.subject = program.Program(options.binary.resolve(), library.compile_library(folder))
        self.symbols = library.Symbols(options.binary)
        self.numbers = itertools.count()
        self.runs = 0
        self.bad = []

    def try_all(self, task, size):
        """Runs a task without faults, then with each fault, and prints a table."""
        nothing = library.Fault(size=size)
        first = self.new_folder()
        outcome = task.run(first, nothing)
        if outcome != "same result":
            raise SystemExit(f"{task.name} fails without a fault: {outcome}")
        counts, stacks, _ = library.read_log(first)
        if size is None:
            faults = points.of_calls(counts, self.options.full)
        else:
            faults = points.of_allocations(stacks, size, self.options.lasting)
        if size is not None and not self.options.full:
            faults = list({self.symbols.caller(stacks[fault.point][1]): fault for fault in faults}.values())
        faults = [fault for fault in faults if self.options.only in fault.point]
        if size is not None and not self.options.only:
            faults += points.periodic()
        with ThreadPoolExecutor(WORKERS) as pool:
            outcomes = list(pool.map(lambda fault: self.try_one(task, fault), faults))
        self.runs += len(faults)
        self.print_table(task, counts, stacks, list(zip(faults, outcomes, strict=True)))

    def try_one(self, task, fault):
        """Runs a task with a fault in a new folder."""
        folder = self.new_folder()
        outcome = task.run(folder, fault)
        if not program.is_bad(outcome):
            shutil.rmtree(folder)
        return outcome

    def new_folder(self):
        return self.folder / f"run-{next(self.numbers)}"

    def print_table(self, task, counts, stacks, tried):
        """Prints a line for each point and outcome, and notes the bad ones."""
        lines = collections.Counter()
        for fault, outcome in tried:
            lines[self.describe(fault, stacks), fault.error, shorten(outcome)] += 1
            if program.is_bad(outcome):
                self.bad.append(f"{task.name}: {dataclasses.asdict(fault)}\n    {outcome}")
        print(f"\n{task.name}: {len(tried)} runs\n{'calls':>6} {'runs':>4}  point: error: outcome")
        by_description = {self.describe(fault, stacks): counts[fault.point] for fault, _ in tried}
        for (description, error, outcome), runs in sorted(lines.items()):
            print(f"{by_description[description]:6} {runs:4}  {description}: {error}: {outcome}")
        print(flush=True)

    def describe(self, fault, stacks):
        """Describes a point for the table."""
        if fault.every:
            return f"every {fault.every}th allocation"
        if fault.point in stacks:
            size, stack = stacks[fault.point]
            passing = "once" if fault.times == 1 else "always"
            return f"allocate {size / (1 << 20):.1f} MiB, {passing}, {self.symbols.caller(stack)} ({fault.point[9:]})"
        return fault.point


def shorten(outcome):
    """Returns an outcome without what differs between runs of the same kind."""
    return outcome if program.is_bad(outcome) or len(outcome) < 150 else f"{outcome[:150]}..."


main()
