#!/usr/bin/env python3
"""Carries out the Dockerfile's stage for CPUs without Docker, in a folder: its RUN lines in a chroot, as root, then what the image
does when it is started, as the image's user, until its own health check passes, and SIGTERM must end it well.

    docker/stage.py ROOT BINARY     ROOT: a Debian as the stage's FROM names it (debootstrap); BINARY: what the build stage made
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def instructions(text: str, stage: str) -> list[tuple[str, str]]:
    """A stage's instructions: a word, and what is after it, continued lines joined."""
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


def main() -> None:
    root, binary = Path(sys.argv[1]), sys.argv[2]
    user, health, entry, command = "0", [], [], []
    for word, rest in instructions((Path(__file__).parent / "Dockerfile").read_text(), "cpu"):
        match word:
            case "RUN":
                assert chroot(root, ["/bin/sh", "-c", rest]).wait() == 0, rest
            case "COPY":
                source, target = rest.split()[-2:]
                assert source == "/src/target/release/surprisal", f"the build stage makes no {source}"
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
                assert (root / rest.strip().lstrip("/")).stat().st_uid == int(user), f"{rest} is not the user's"
            case "EXPOSE":
                assert rest.strip() == "8000"
            case _:
                raise SystemExit(f"{word} is an instruction that this script does not know")
    assert user != "0" and health and entry, "the image is of a user, with a health check"
    print("starting:", shlex.join(entry + command), "as", user, flush=True)
    with chroot(root, entry + command, user) as server:
        try:
            deadline = time.monotonic() + 60
            while chroot(root, health, user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() != 0:
                assert server.poll() is None, "it has ended"
                assert time.monotonic() < deadline, "the health check does not pass"
                time.sleep(0.2)
            assert os.stat(f"/proc/{server.pid}").st_uid == int(user)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, "SIGTERM is a clean end"
    print("the stage is built, healthy, and stops when told")


if __name__ == "__main__":
    main()
