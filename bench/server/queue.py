#!/usr/bin/env python3
"""Computes the lowest possible p99 at 0.8 of the capacity: documents of equal work, in passes of at most 8.

A pass of n documents takes `a + n`, so `a` is the fixed cost of a pass, in units of one document. A document that
arrives during a pass waits for the next one. Nothing here depends on the engine: this is the lower bound for any such
server. Prints p50 and p99 in units of one document, and their ratio, for Poisson and for even arrivals.
"""

import random

ARRIVALS, LOAD, BATCH = 400_000, 0.8, 8


def latencies(a, batch, even):
    rng = random.Random(1)
    rate = LOAD * batch / (a + batch)
    now, due = 0.0, []
    for _ in range(ARRIVALS):
        now += 1 / rate if even else rng.expovariate(rate)
        due.append(now)
    first, free, found = 0, 0.0, []
    while first < ARRIVALS:
        begin = max(free, due[first])
        last = first
        while last < ARRIVALS and due[last] <= begin and last - first < batch:
            last += 1
        free = begin + a + (last - first)
        found += [free - at for at in due[first:last]]
        first = last
    found.sort()
    return found[ARRIVALS // 2], found[ARRIVALS * 99 // 100]


print("| a | batch | p50 | p99 | p99/p50 | even p99/p50 |")
print("|---|---|---|---|---|---|")
for a, batch in [(0, 1)] + [(a, BATCH) for a in (0, 0.25, 0.5, 1, 2, 4)]:
    p50, p99 = latencies(a, batch, False)
    even50, even99 = latencies(a, batch, True)
    print(f"| {a} | {batch} | {p50:.1f} | {p99:.1f} | {p99 / p50:.1f} | {even99 / even50:.1f} |")
