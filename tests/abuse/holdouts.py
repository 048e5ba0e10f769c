"""Connections that are open when the server has to exit."""

import contextlib
import socket
import time

import connections
import wire


@contextlib.contextmanager
def open_all(port, key):
    """Holds idle connections, half-sent heads and bodies, and answers that nobody reads, for a `with` block."""
    attacker = wire.Attacker(("127.0.0.1", port), "127.0.0.1", key, 0, wire.Tally())
    half_body = attacker.head("/logprobs", 4096) + b"{"
    head = attacker.head("/logprobs", len(connections.EQUAL_PAIRS), accept="application/x-ndjson")
    unread = head + connections.EQUAL_PAIRS
    with contextlib.ExitStack() as stack:
        for first, count in [(b"", 10), (b"POST /logprobs HTTP/1.1\r\nhost: ", 10), (half_body, 10), (unread, 4)]:
            for _ in range(count):
                held = stack.enter_context(socket.socket())
                held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                held.settimeout(10)
                # The server may reject some of them.
                with contextlib.suppress(OSError):
                    held.connect(("127.0.0.1", port))
                    held.sendall(first)
        # The answers begin.
        time.sleep(3)
        yield
