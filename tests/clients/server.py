"""The server under test, and requests to it without a client library."""

import json
import re
import subprocess
import threading
import urllib.error
import urllib.request


class Server:
    """A server on a free port, which runs for the length of a `with` block."""

    def __init__(self, binary, model):
        command = [binary, "serve", "--model", str(model), "--port", "0", "--cache-mib", "64"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log = []

    def __enter__(self):
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"serving .* on (http://\S+),", line):
                # Drain stderr, so that the server does not block on its log.
                self.reader = threading.Thread(target=self.log.extend, args=(self.process.stderr,))
                self.reader.start()
                return found[1]
        raise RuntimeError(f"the server did not start:\n{''.join(self.log)}")

    def __exit__(self, *_):
        self.process.terminate()
        self.reader.join(timeout=60)
        if self.process.wait(timeout=60) != 0:
            raise RuntimeError(f"the server failed:\n{''.join(self.log)}")


def post(url, body):
    """Returns the text of the response to a JSON body. An error of the server is raised with its text."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"POST {url} got {error.code}: {error.read().decode()}\nrequest: {body}") from None
