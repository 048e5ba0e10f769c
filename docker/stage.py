#!/usr/bin/env python3
"""Runs the Dockerfile's `cpu` stage without Docker, in a folder.

Executes its RUN lines in a chroot as root, then starts the image's command as the image's user. Checks that the image's
health check passes, that the server answers a query, and that it exits with code 0 on SIGTERM.

    docker/stage.py ROOT BINARY     ROOT: the Debian of the stage's FROM (debootstrap); BINARY: the build stage's output
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def instructions(text: str, stage: str) -> list[tuple[str, str]]:
    """Returns the instructions of a stage as (instruction, arguments), with continued lines joined."""
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#")).replace("\\\n", " ")
    found, inside = [], False
    for line in filter(str.strip, lines.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            inside = rest.split()[-1] == stage
        elif inside:
            found.append((word, rest))
    return found


def chroot(root: Path, command: list[str], user: str = "0", **options) -> subprocess.Popen:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "DEBIAN_FRONTEND": "noninteractive"}
    if user != "0":
        environment["HOME"] = "/home/surprisal"
    return subprocess.Popen(["chroot", f"--userspec={user}:{user}", str(root), *command], env=environment, **options)


def ask() -> None:
    """Sends a query to the oracle, which the image serves by default."""
    body = json.dumps({"queries": [{"context": "baba+", "target": "tuve-"}]}).encode()
    request = urllib.request.Request("http://127.0.0.1:8000/logprobs", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        [result] = json.load(response)["results"]
    assert result["sum"] < 0, result


def main() -> None:
    root, binary = Path(sys.argv[1]), sys.argv[2]
    user, health, entry, command = "0", [], [], []
    for word, rest in instructions((Path(__file__).parent / "Dockerfile").read_text(), "cpu"):
        match word:
            case "RUN":
                assert chroot(root, ["/bin/sh", "-c", rest]).wait() == 0, rest
            case "COPY":
                source, target = rest.split()[-2:]
                assert source == "/src/target/release/surprisal", f"COPY from {source}: expected /src/target/release/surprisal"
                shutil.copy(binary, root / target.lstrip("/"))
            case "USER":
                user = rest.strip()
            case "HEALTHCHECK":
                health = json.loads(rest.split("CMD", 1)[1])
            case "ENTRYPOINT":
                entry = json.loads(rest)
            case "CMD":
                command = json.loads(rest)
            case "VOLUME":
                assert (root / rest.strip().lstrip("/")).stat().st_uid == int(user), f"volume {rest} must belong to user {user}"
            case "EXPOSE":
                assert rest.strip() == "8000"
            case _:
                raise SystemExit(f"unsupported instruction: {word}")
    assert user != "0" and health and entry, "the image must have a non-root USER, a HEALTHCHECK and an ENTRYPOINT"
    print("starting:", shlex.join(entry + command), "as", user, flush=True)
    with chroot(root, entry + command, user) as server:
        try:
            deadline = time.monotonic() + 60
            while chroot(root, health, user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() != 0:
                assert server.poll() is None, "the server exited"
                assert time.monotonic() < deadline, "the health check did not pass within 60 s"
                time.sleep(0.2)
            assert os.stat(f"/proc/{server.pid}").st_uid == int(user)
            ask()
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, "SIGTERM must end the server with exit code 0"
    print("the stage builds, becomes healthy, answers a query, and stops on SIGTERM")


if __name__ == "__main__":
    main()
