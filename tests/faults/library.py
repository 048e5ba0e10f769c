"""The library that makes calls of a program fail (point.c, files.c, sockets.c, memory.c), and its log."""

import bisect
import collections
import dataclasses
import errno
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Fault:
    """The calls that fail in a run."""

    # The call and its object: a line of the log.
    point: str = ""
    # The first call that fails, and the number of calls that fail; one of them may be repeated by the program.
    first: int = 1
    times: int = 1
    # The name of the error.
    error: str = "ENOMEM"
    # Size from which allocations are points, in bytes; None if they are not.
    size: int | None = None
    # If not None, every `every`-th allocation that is not tiny fails once.
    every: int | None = None


def compile_library(folder):
    """Compiles the library in a folder. Returns its path."""
    path = pathlib.Path(folder, "faults.so")
    sources = sorted(HERE.glob("*.c"))
    flags = ["-O1", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", "-shared", *flags, "-o", path, *sources], check=True)
    return path


def environment(library, root, fault):
    """Returns the variables that tell the library to log all calls, and to fail those of the fault."""
    settings = {"LD_PRELOAD": library, "FAULTS_LOG": log_path(root), "FAULTS_ROOT": root}
    if fault.point:
        settings |= {"FAULTS_POINT": fault.point, "FAULTS_FIRST": fault.first, "FAULTS_TIMES": fault.times}
        settings |= {"FAULTS_ERRNO": getattr(errno, fault.error)}
    if fault.size is not None:
        settings["FAULTS_SIZE"] = fault.size
    if fault.every is not None:
        settings["FAULTS_EVERY"] = fault.every
    return {name: str(value) for name, value in settings.items()}


def log_path(root):
    """Returns the path of the log of a run in this folder."""
    return pathlib.Path(root, "faults.log")


def read_log(root):
    """Returns the number of calls of each point, the call stacks by the point's name, and the number of failures."""
    counts, stacks, failed = collections.Counter(), {}, 0
    for line in log_path(root).read_text(errors="replace").splitlines():
        if line.startswith("stack "):
            _, name, size, *addresses = line.split()
            stacks[f"allocate {name}"] = int(size), [int(address, 16) for address in addresses]
        elif line.startswith("FAILED "):
            failed += 1
        else:
            counts[line] += 1
    return counts, stacks, failed


class Symbols:
    """The names of the program's functions."""

    # Functions that pass an allocation on, and that therefore do not tell who allocates.
    PASSING = re.compile(
        "alloc|RawVec|Vec<|vec::|String|finish_grow|Retrying|retry|collect|from_iter|with_capacity|bytes::|Arc<|reserve"
    )

    def __init__(self, binary):
        lines = subprocess.run(["nm", "-C", "--defined-only", "-n", binary], capture_output=True, text=True).stdout
        found = (line.split(" ", 2) for line in lines.splitlines())
        self.names = [(int(address, 16), name) for address, kind, name in found if kind in "tTwW"]
        self.addresses = [address for address, _ in self.names]

    def name(self, address):
        """Returns the name of the function at an address."""
        place = bisect.bisect(self.addresses, address) - 1
        name = self.names[place][1] if place >= 0 else hex(address)
        return re.sub(r"::h[0-9a-f]{16}$", "", name)

    def caller(self, stack):
        """Returns the names of the functions that caused an allocation."""
        names = [self.name(address) for address in stack]
        telling = [name for name in names if not self.PASSING.search(name)]
        return " < ".join((telling or names)[:2])
