"""Runs the program with a fault, and judges how it ends."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import library

# Seconds after which a run counts as hung.
TIMEOUT = 60
# Seconds between two SIGTERMs.
TERM_INTERVAL = 10
# Panics of tokio and rayon, which cannot start a thread or the pair of sockets that receive signals, before any work.
KNOWN_PANICS = ["failed to create UnixStream", "OS can't spawn worker thread", "global thread pool has not been init"]
BAD = ("hang", "signal", "panic", "wrong", "unclear", "lost")


class Program:
    """The program under test, and the library that makes its calls fail."""

    def __init__(self, binary, faults):
        self.binary = str(binary)
        self.faults = faults

    def environment(self, root, fault):
        """Returns the environment of a run."""
        variables = dict(os.environ) | {"NO_COLOR": "1", "XDG_CACHE_HOME": str(root)}
        if fault is not None:
            variables |= library.environment(self.faults, root, fault)
        return variables

    def run(self, root, fault, *arguments):
        """Runs a command in a folder until it ends. Returns its status (None if it hangs), stdout and stderr."""
        command, variables = [self.binary, *arguments], self.environment(root, fault)
        with open(pathlib.Path(root, "stdout"), "wb") as out, open(pathlib.Path(root, "stderr"), "wb") as error:
            process = subprocess.Popen(command, cwd=root, env=variables, stdout=out, stderr=error)
            status = wait(process)
        read = (pathlib.Path(root, name).read_text(errors="replace") for name in ["stdout", "stderr"])
        return status, *read

    def serve(self, root, fault, *arguments):
        """Starts a server in a folder. Returns its process and its port."""
        port = free_port()
        command = [self.binary, "serve", "--model", "model", "--port", str(port), *arguments]
        with open(pathlib.Path(root, "server"), "wb") as log:
            variables = self.environment(root, fault)
            process = subprocess.Popen(command, cwd=root, env=variables, stdout=log, stderr=subprocess.STDOUT)
        return process, port


def wait(process):
    """Waits until a process ends. Returns its status; None if it hangs, and then kills it."""
    try:
        return process.wait(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def stop(process):
    """Sends SIGTERM, again after a while, and waits until the process ends. Returns its status; None if it hangs."""
    for _ in range(2):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=TERM_INTERVAL)
        except subprocess.TimeoutExpired:
            continue
    return wait(process)


def wait_until_ready(process, port):
    """Waits until the server responds. Returns whether it does; otherwise it ended or hangs."""
    end = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            time.sleep(0.03)
    return False


def free_port():
    """Returns a port that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def judge_end(status, text, fault):
    """Judges the end of a process that wrote this text: "" if it succeeded, otherwise "error: ..." or what is bad."""
    if status is None:
        return "hang"
    if any(known in text for known in KNOWN_PANICS):
        return "error: a library cannot start a thread or handle signals"
    if "panicked at" in text:
        return "panic: " + re.search(r"panicked at .*(?:\n.*)?", text)[0].replace("\n", " ")
    if status < 0:
        return f"signal {-status}: {last_line(text)}"
    if status == 0:
        return ""
    message = last_line(text)
    # The message of a failed call on a file names the file or its folder.
    call, _, target = fault.point.partition(" ") if fault else ("", "", "")
    names = [part.strip(".") for part in re.split(r"[/*]", target) if len(part) > 3]
    if not re.match(r"error: \S", message) or ("/" in target and not any(name in message for name in names)):
        # Nobody reads a message that cannot be written.
        return f"unclear: {message}" if target != "stderr" else "error: stderr cannot be written"
    return message


def last_line(text):
    """Returns the last line that states an error, or the last line."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1])


def is_bad(outcome):
    """Returns whether an outcome is a failure of the program."""
    return outcome.startswith(BAD)
