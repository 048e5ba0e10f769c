#!/usr/bin/env python3
"""Builds two commits and runs a Criterion benchmark of both in turns; prints the ratios of their times, with ranges.

    bench/compare.py HEAD~1 HEAD --bench kernels --filter product --rounds 5

A ratio above 1 means that the second commit is faster. Needs only git and cargo.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path


def build(tree: Path, target: Path, bench: str) -> tuple[str, Path]:
    """Returns the benchmark's binary, and the folder in which cargo would run it."""
    command = ["cargo", "bench", "-p", "surprisal-bench", "--bench", bench, "--no-run", "--message-format", "json"]
    env = os.environ | {"CARGO_TARGET_DIR": str(target)}
    lines = subprocess.run(command, cwd=tree, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    built = [json.loads(line) for line in lines]
    found = [one["executable"] for one in built if one.get("executable") and one["target"]["name"] == bench]
    return found[0], tree / "bench"


def times(program: str, folder: Path, args: argparse.Namespace, home: Path) -> dict[str, float]:
    """Returns the nanoseconds of each benchmark by name."""
    command = [program, "--bench", "--noplot", "--warm-up-time", "1", "--measurement-time", args.seconds]
    subprocess.run([*command, *([args.filter] if args.filter else [])], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, env=os.environ | {"CRITERION_HOME": str(home)})
    found = {}
    for estimates in home.glob("**/new/estimates.json"):
        name = str(estimates.parent.parent.relative_to(home))
        found[name] = json.loads(estimates.read_text())["median"]["point_estimate"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs=2)
    parser.add_argument("--bench", default="kernels")
    parser.add_argument("--filter", help="Run only benchmarks whose name contains this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", default="2", help="Seconds per benchmark and round")
    args = parser.parse_args()
    root = Path(subprocess.check_output(["git", "rev-parse", "--show-toplevel"], text=True).strip())
    with tempfile.TemporaryDirectory() as made:
        trees = [Path(made) / name for name in ("first", "second")]
        try:
            programs = []
            for tree, commit in zip(trees, args.commits):
                subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=root, check=True)
                programs.append(build(tree, Path(made) / f"target-{tree.name}", args.bench))
            rounds = [[times(*program, args, Path(made) / f"round-{i}-{j}") for j, program in enumerate(programs)]
                      for i in range(args.rounds)]
        finally:
            for tree in trees:
                subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=root, check=False, stderr=subprocess.DEVNULL)
    print(f"{args.bench}: {args.commits[0]} over {args.commits[1]}, {args.rounds} rounds; above 1, the second is faster")
    for name in sorted(set(rounds[0][0]) & set(rounds[0][1])):
        ratios = sorted(first[name] / second[name] for first, second in rounds)
        print(f"{name:<50} {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
