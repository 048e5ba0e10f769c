"""HTTP/1.1 by hand: an attacker controls every byte that it sends, and does not always read the answer."""

import asyncio
import collections
import contextlib
import dataclasses
import random
import re
import socket

# Seconds to wait for a connection or for an answer.
TIMEOUT = 120
# Seconds for which a silent connection is held.
HOLD = 40


@dataclasses.dataclass
class Tally:
    """The counts of one attack."""

    # Requests, or connections that never send one.
    sent: int = 0
    # Answers by status. "held" is a connection that the server left open for all of `HOLD`.
    statuses: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    # Connections that the server refused, reset, or closed without an answer.
    closed: int = 0


class Attacker:
    """One connection of an attack, which is opened again whenever it is closed."""

    def __init__(self, server, source, key, number, tally):
        self.server = server
        # The attacker's address. Addresses of the loopback network stand for machines, one for each attack.
        self.source = source
        self.key = key
        # The number among the attackers of its kind.
        self.number = number
        self.tally = tally
        self.random = random.Random(number)
        self.turns = 0
        self.reader = self.writer = None

    async def connect(self, receive_buffer=None):
        """Returns a new connected socket."""
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            connection.bind((self.source, 0))
            async with asyncio.timeout(TIMEOUT):
                await asyncio.get_running_loop().sock_connect(connection, self.server)
        except BaseException:
            connection.close()
            raise
        return connection

    async def open(self):
        """Opens the connection, unless it is open."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(sock=await self.connect())

    def abort(self):
        """Closes the connection at once."""
        if self.writer is not None:
            self.writer.transport.abort()
            self.reader = self.writer = None

    def head(self, path, length, key=None, **fields):
        """Returns the head of a request with a body. Fields are written as in `content_encoding="zstd"`."""
        lines = [f"POST {path} HTTP/1.1", "host: server", f"content-length: {length}", "content-type: application/json"]
        lines.append(f"authorization: Bearer {key or self.key}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    async def send(self, path, body, **fields):
        """Sends a request."""
        await self.open()
        self.tally.sent += 1
        self.writer.write(self.head(path, len(body), **fields) + body)
        async with asyncio.timeout(TIMEOUT):
            await self.writer.drain()

    async def request(self, path, body, **fields):
        """Sends a request, and discards its answer. Returns the status."""
        await self.send(path, body, **fields)
        async with asyncio.timeout(TIMEOUT):
            return await self.answer()

    async def answer(self):
        """Reads an answer, discards its body, and counts its status. Returns the status."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        self.tally.statuses[str(status)] += 1
        if "transfer-encoding: chunked" in head:
            await self.skip_chunks()
        elif length := re.search(r"content-length: *(\d+)", head):
            await self.skip(int(length[1]))
        if "connection: close" in head:
            self.abort()
        return status

    async def skip_chunks(self):
        """Reads a chunked body."""
        size = 1
        while size > 0:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            # The end of the line follows each chunk.
            await self.skip(size + 2)

    async def skip(self, count):
        """Reads `count` bytes."""
        while count > 0:
            received = await self.reader.read(min(count, 1 << 16))
            if not received:
                raise EOFError
            count -= len(received)

    async def hold(self, first, piece=b"", interval=1.0):
        """Sends `first` on a new connection, then `piece` at intervals, until the server answers or closes it."""
        self.abort()
        await self.open()
        self.tally.sent += 1
        self.writer.write(first)
        answer = asyncio.ensure_future(self.answer())
        try:
            for _ in range(round(HOLD / interval)):
                done, _ = await asyncio.wait({answer}, timeout=interval)
                if done:
                    answer.result()
                    return
                self.writer.write(piece)
            self.tally.statuses["held"] += 1
        finally:
            answer.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, EOFError):
                await answer
            self.abort()
