"""Attacks by connections: clients that send or read slowly, or not at all."""

import asyncio
import json
import select
import socket

import frames
import payloads
import wire

# The answers are as long as the tokens of all pairs.
EQUAL_PAIRS = json.dumps(
    {
        "contexts": [[11, 12]],
        "targets": [[payloads.TOKENS[place % len(payloads.TOKENS)] for place in range(payloads.LONG)]],
        "pairs": [[0, 0]] * 4000,
        "detail": "tokens",
    }
).encode()

# Decodes to 120 MiB of spaces in a window of 128 MiB.
WIDE_FRAME = frames.frame(b" ", b" ", 120 << 20, b" ", window_log=27)


async def stalled_frame(attacker):
    """Sends all but the last byte of a compressed body that needs a large window."""
    path = ["/logprobs", "/tokenize"][attacker.number % 2]
    await attacker.hold(attacker.head(path, len(WIDE_FRAME), content_encoding="zstd") + WIDE_FRAME[:-1])


async def half_head(attacker):
    """Sends a head that never ends, a byte in five seconds."""
    await attacker.hold(b"POST /logprobs HTTP/1.1\r\nhost: server\r\nx-filler: ", b"a", 5)


async def idle(attacker):
    """Connects, and sends nothing."""
    await attacker.hold(b"", b"", 5)


async def slow_body(attacker):
    """Sends a body at a byte per second."""
    path = ["/logprobs", "/v1/completions", "/tokenize"][attacker.number % 3]
    await attacker.hold(attacker.head(path, 4096), b" ", 1)


async def wrong_key(attacker):
    """Sends a large body slowly, with a key that the server does not know."""
    await attacker.hold(attacker.head("/logprobs", 60 << 20, key="wrong"), b" " * (64 << 10), 0.5)


async def churn(attacker):
    """Disconnects in different ways."""
    attacker.abort()
    await attacker.open()
    attacker.tally.sent += 1
    if attacker.turns % 4 == 0:
        return attacker.abort()
    if attacker.turns % 4 == 1:
        attacker.writer.write(b"GET /health HTTP/1.1\r\nhost: server\r\n")
        await asyncio.sleep(0.05)
        return attacker.abort()
    # A request, or nothing, and the end of the client's half of the connection.
    if attacker.turns % 4 == 2:
        attacker.writer.write(b"GET /health HTTP/1.1\r\nhost: server\r\n\r\n")
    attacker.writer.write_eof()
    try:
        async with asyncio.timeout(10):
            await attacker.answer()
    finally:
        attacker.abort()


async def unread(attacker):
    """Requests a large answer, alternately as JSON and as NDJSON, and does not read it."""
    accept = ["application/json", "application/x-ndjson"][attacker.number % 2]
    connection = await attacker.connect(receive_buffer=4096)
    try:
        attacker.tally.sent += 1
        head = attacker.head("/logprobs", len(EQUAL_PAIRS), accept=accept)
        await asyncio.get_running_loop().sock_sendall(connection, head + EQUAL_PAIRS)
        async with asyncio.timeout(wire.TIMEOUT):
            status = await peek_status(connection)
        attacker.tally.statuses[status] += 1
        if status != "200":
            return
        for _ in range(wire.HOLD):
            await asyncio.sleep(1)
            if is_closed(connection):
                raise EOFError
        if not await has_more(connection):
            raise EOFError
        attacker.tally.statuses["held"] += 1
    finally:
        connection.close()


async def peek_status(connection):
    """Waits for the status of the answer, and leaves all of the answer unread."""
    while True:
        try:
            start = connection.recv(12, socket.MSG_PEEK)
        except BlockingIOError:
            start = None
        if start == b"":
            raise EOFError
        if start and len(start) == 12:
            return start[9:].decode()
        await asyncio.sleep(0.1)


def is_closed(connection):
    """Returns whether the server closed the connection and the client's system knows it."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


async def has_more(connection):
    """Returns whether the server still sends. What it sent before it closed the connection may fill buffers of a few
    megabytes, so that its end is not visible before they are read."""
    received = 0
    while received < 16 << 20:
        async with asyncio.timeout(10):
            part = await asyncio.get_running_loop().sock_recv(connection, 1 << 16)
        if not part:
            return False
        received += len(part)
    return True
