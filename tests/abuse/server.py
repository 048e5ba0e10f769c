"""The server under attack: its limits, its resources as the system counts them, and its end."""

import os
import pathlib
import re
import resource
import socket
import subprocess
import time

# Limits of the process.
ADDRESS_SPACE = 4 << 30
DESCRIPTORS = 256
# Seconds that requests have to finish at shutdown.
DRAIN = 5


class Server:
    """A server process with API keys, on a free port."""

    def __init__(self, binary, model, folder, keys, token_budget):
        self.folder = pathlib.Path(folder)
        (self.folder / "keys").write_text("\n".join(keys))
        self.admin_port = free_port()
        (self.folder / "config.toml").write_text(
            f"""
            model = "{model}"
            port = 0
            admin_port = {self.admin_port}
            cache_mib = 32
            token_budget = {token_budget}
            api_key_file = "{self.folder / "keys"}"
            [server]
            drain_seconds = {DRAIN}
            """
        )
        command = [binary, "serve", "--config", str(self.folder / "config.toml")]
        self.log_path = self.folder / "log"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(command, stderr=log, preexec_fn=limit_resources)
        self.port = self.wait_for_port()

    def wait_for_port(self):
        """Waits until the server serves; returns its port."""
        while not (found := re.search(r"serving .* on http://127\.0\.0\.1:(\d+)", self.log())):
            if not self.is_alive():
                raise SystemExit(f"the server did not start:\n{self.log()}")
            time.sleep(0.1)
        return int(found[1])

    def log(self):
        """Returns the server's log."""
        return self.log_path.read_text(errors="replace")

    def is_alive(self):
        """Returns whether the process runs."""
        return self.process.poll() is None

    def usage(self):
        """Returns the resources that the process holds: resident MiB, descriptors and threads; None after its end."""
        folder = f"/proc/{self.process.pid}"
        try:
            status = pathlib.Path(folder, "status").read_text()
            return {
                "MiB": int(re.search(r"VmRSS:\s*(\d+)", status)[1]) // 1024,
                "descriptors": len(os.listdir(f"{folder}/fd")),
                "threads": int(re.search(r"Threads:\s*(\d+)", status)[1]),
            }
        except (OSError, TypeError):
            # The files of a process that ended are gone, or lack these lines.
            return None

    def stop(self, seconds):
        """Sends SIGTERM. Returns the exit status, or None if the server still runs after `seconds`."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def limit_resources():
    """Limits the memory and the descriptors of this process."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def free_port():
    """Returns a port that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
