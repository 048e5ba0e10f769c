"""Runs attacks until its standard input ends, then prints their counts as JSON: attackers.py HOST PORT KEYS ATTACKS

KEYS and ATTACKS are separated by commas; with no ATTACKS, all of them run.
"""

import asyncio
import json
import os
import sys

import connections
import payloads
import wire

# The attacks: the number of connections, the pause between two turns of one, in seconds, and the function of a turn.
# Those that need a connection for their work come before those that only take connections.
ATTACKS = {
    "bombs": (2, 1, payloads.bomb),
    "priority": (8, 0.5, payloads.priority),
    "generations": (4, 0.5, payloads.generate),
    "cancelled": (8, 2, payloads.cancel),
    "tokenize": (50, 0.5, payloads.tokenize),
    "stalled-zstd": (16, 1, connections.stalled_frame),
    "unread": (24, 1, connections.unread),
    "wrong-keys": (8, 1, connections.wrong_key),
    "churn": (4, 0.25, connections.churn),
    "slow-bodies": (40, 1, connections.slow_body),
    "half-heads": (40, 1, connections.half_head),
    "idle": (60, 1, connections.idle),
}


async def main():
    # The attackers stand for other machines, and must not take the server's cores.
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    server, keys = (sys.argv[1], int(sys.argv[2])), sys.argv[3].split(",")
    chosen = sys.argv[4].split(",") if sys.argv[4] else list(ATTACKS)
    tallies = {name: wire.Tally() for name in chosen}
    tasks, ended = [], asyncio.Event()
    for place, name in enumerate(chosen):
        count, pause, turn = ATTACKS[name]
        for number in range(count):
            attacker = wire.Attacker(server, f"127.0.0.{2 + place}", keys[number % len(keys)], number, tallies[name])
            tasks.append(asyncio.create_task(repeat(attacker, turn, pause, ended)))
            await asyncio.sleep(0.005)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    # A cancellation is lost if the time limit of a step ends at the same moment.
    ended.set()
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if result is not None and not isinstance(result, asyncio.CancelledError):
            print(f"an attacker failed: {result!r}", file=sys.stderr)
    print(json.dumps({name: vars(tally) for name, tally in tallies.items()}))


async def repeat(attacker, turn, pause, ended):
    """Repeats an attack until `ended` is set, and counts the connections that fail."""
    try:
        while not ended.is_set():
            try:
                await turn(attacker)
            except TimeoutError:
                attacker.tally.statuses["no answer"] += 1
                attacker.abort()
            except (OSError, EOFError):
                attacker.tally.closed += 1
                attacker.abort()
            attacker.turns += 1
            await asyncio.sleep(pause)
    finally:
        attacker.abort()


asyncio.run(main())
