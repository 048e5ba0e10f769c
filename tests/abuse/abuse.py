"""Attacks a server in all ways at once, and checks that another client keeps its service.

`run` makes the checkpoint and runs this: abuse.py BINARY FOLDER [OPTIONS]
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import asker
import holdouts
import warm_up
import watch
from server import Server

GOOD_KEY, BAD_KEYS = "good-key", ["bad-key-1", "bad-key-2", "bad-key-3", "bad-key-4"]
# Resident memory may grow by this share of the value before the attacks, plus a constant in MiB.
GROWTH_SHARE, GROWTH_MIB = 0.1, 32


def main():
    options = parse_options()
    model = str(options.folder / "model")
    server = Server(options.binary, model, options.folder, [GOOD_KEY, *BAD_KEYS], options.token_budget)
    prefer_this_process()
    failures = []
    try:
        attack(server, options, failures)
        if server.is_alive():
            check_exit(server, options, failures)
    finally:
        if server.is_alive():
            server.stop(0)
    if failures:
        print_log(server.log())
        raise SystemExit("\n".join(["failed:", *failures]))


def prefer_this_process():
    """Lets the good client, which stands for another machine, run before the server if the system permits it."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=60, help="length of the attacks")
    parser.add_argument("--quiet", type=int, default=10, help="length of the quiet phase, in seconds")
    parser.add_argument("--ratio", type=float, help="limit on the p99 under attack, as a multiple of the quiet p99")
    parser.add_argument("--settle-seconds", type=int, default=90, help="limit on the release of resources afterwards")
    parser.add_argument("--exit-seconds", type=int, default=60, help="limit on the shutdown after SIGTERM")
    parser.add_argument("--token-budget", type=int, default=64, help="the server's token budget")
    parser.add_argument("--attacks", default="", help="names of attacks, separated by commas (default: all)")
    return parser.parse_args()


def attack(server, options, failures):
    """Measures the good client without and with attacks, and checks what the attacks leave behind."""
    in_quiet, in_abuse = round(options.quiet / asker.PERIOD), round(options.seconds / asker.PERIOD)
    questions = asker.make_questions(in_quiet + in_abuse)
    # Every other question is new: the server may have the answers to the others in its cache.
    numbers = [in_quiet + place if place % 2 else place % in_quiet for place in range(in_abuse)]
    client = asker.Asker(server, GOOD_KEY)
    warm_up.run(server, GOOD_KEY)
    quiet = client.run(questions, range(in_quiet))
    before = server.usage()
    print(f"quiet: {quiet}\n       {before}", flush=True)

    command = [sys.executable, "attackers.py", "127.0.0.1", str(server.port), ",".join(BAD_KEYS), options.attacks]
    attackers = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with watch.Watch(server) as watched:
        abused = client.run(questions, numbers)
    tallies = json.loads(attackers.communicate("")[0])
    ratio = abused.percentile(0.99) / quiet.percentile(0.99)
    print(f"abuse: {abused}\n       p99 is {ratio:.1f} times the quiet one; peak {watched.peak} MiB")
    for (name, result), count in sorted(watched.probes.items()):
        print(f"       new connections to the {name}: {count} {result}")
    print_table(tallies)

    after = settle(server, before, options.settle_seconds)
    print(f"after: {after}")
    # An odd step takes both old and new questions.
    some = numbers[:: max(1, in_abuse // in_quiet) | 1]
    again = client.run(questions, some) if server.is_alive() else asker.Phase()
    print(f"       {again}")
    problems = re.findall(r'surprisal_problems_total\{type="(.*)"\} (\d+)', watch.metrics(server.admin_port))
    print("problems:", ", ".join(f"{name} {count}" for name, count in problems), flush=True)

    if not server.is_alive():
        failures.append(f"the server died with status {server.process.returncode}")
    check_answers(quiet, [abused, again], failures)
    check_leaks(before, after, failures)
    if watched.probes["admin port", "not answered"]:
        failures.append("the admin port did not answer /health")
    if options.ratio and not ratio <= options.ratio:
        failures.append(f"p99 under attack is {ratio:.1f} times the quiet one; the limit is {options.ratio}")


def print_log(log):
    """Prints the warnings and the end of the server's log."""
    lines = log.splitlines()
    warnings = [line for line in lines if "WARN" in line or "ERROR" in line]
    title = f"{len(warnings)} warnings of the server, and the end of its log:"
    print("\n".join(["", title, *warnings[-20:], *lines[-10:]]))


def print_table(tallies):
    """Prints the counts of each attack."""
    print(f"\n{'attack':14} {'sent':>7} {'closed':>7}  statuses")
    for name, tally in tallies.items():
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(tally["statuses"].items()))
        print(f"{name:14} {tally['sent']:7} {tally['closed']:7}  {statuses}")
    print("closed: connections that the server refused, reset, or closed without an answer\n", flush=True)


def settle(server, before, seconds):
    """Waits until the server holds no more than before. Returns what it holds."""
    end = time.monotonic() + seconds
    while (usage := server.usage()) and find_leaks(before, usage) and time.monotonic() < end:
        time.sleep(1)
    return usage


def find_leaks(before, after):
    """Returns the resources of which the server holds more than before."""
    limits = dict(before) | {"MiB": round(before["MiB"] * (1 + GROWTH_SHARE)) + GROWTH_MIB}
    return [f"{after[name]} {name}; the limit is {limits[name]}" for name in limits if after[name] > limits[name]]


def check_leaks(before, after, failures):
    """Checks that the server gave back what the attacks took."""
    for leak in find_leaks(before, after) if after else []:
        failures.append(f"after the attacks, the server holds {leak}")


def check_answers(quiet, later, failures):
    """Checks that every question was answered, each time with the same bits."""
    if lost := sum(phase.lost for phase in [quiet, *later]):
        failures.append(f"{lost} questions of the good client were not answered")
    expected = dict(quiet.answers)
    answers = [answer for phase in later for answer in phase.answers]
    if different := sum(expected.setdefault(number, answer) != answer for number, answer in answers):
        failures.append(f"{different} of {len(answers)} answers differ from the first ones to the same questions")


def check_exit(server, options, failures):
    """Checks that SIGTERM ends the server while clients hold connections in all ways."""
    with holdouts.open_all(server.port, BAD_KEYS[0]):
        start = time.monotonic()
        status = server.stop(options.exit_seconds)
        print(f"exit: status {status} {time.monotonic() - start:.1f} s after SIGTERM")
    if status != 0:
        said = f"still ran {options.exit_seconds} s after SIGTERM" if status is None else f"exited with {status}"
        failures.append(f"the server {said}")


main()
