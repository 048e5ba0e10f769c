"""Watches the server beside the attacks: its memory, and whether new connections are answered."""

import collections
import functools
import http.client
import threading

# Seconds after which a new connection counts as not answered.
TIMEOUT = 10


class Watch:
    """Threads that look once per second, for the length of a `with` block."""

    def __init__(self, server):
        self.server = server
        self.peak = 0
        # Probes by name and result.
        self.probes = collections.Counter()
        self.ended = threading.Event()

    def __enter__(self):
        ports = {"data port": self.server.port, "admin port": self.server.admin_port}
        steps = [self.look, *(functools.partial(self.probe, name, port) for name, port in ports.items())]
        self.threads = [threading.Thread(target=self.repeat, args=(step,)) for step in steps]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def repeat(self, step):
        """Repeats a step once per second."""
        while not self.ended.wait(1):
            step()

    def look(self):
        """Notes the memory."""
        if usage := self.server.usage():
            self.peak = max(self.peak, usage["MiB"])

    def probe(self, name, port):
        """Asks for the server's health on a new connection."""
        result = "answered" if health(port) else "not answered"
        self.probes[name, result] += 1


def health(port):
    """Returns whether the port answers `/health` with 200 on a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def metrics(port):
    """Returns the server's metrics, as text; empty if it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
