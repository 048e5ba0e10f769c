"""The faults to try, chosen from the calls of a run without faults."""

import math

from library import Fault

# Errors of calls on files, pipes and sockets, the most telling one first.
READ = ["EIO", "EINTR"]
WRITE = ["ENOSPC", "EINTR", "EIO"]
ERRORS = {
    "open": ["EMFILE", "EIO"],
    "opendir": ["EMFILE"],
    "read": READ,
    "readv": READ,
    "pread": READ,
    "write": WRITE,
    "writev": WRITE,
    "pwrite": WRITE,
    "copy_file_range": ["ENOSPC", "EIO"],
    "ftruncate": ["EIO"],
    "link": ["EIO"],
    "mkdir": ["ENOSPC", "EACCES"],
    "mmap": ["ENOMEM"],
    "rename": ["EIO", "ENOSPC"],
    "accept": ["EMFILE", "ECONNABORTED", "EINTR", "ENOMEM"],
    "recv": ["EINTR", "ENOMEM", "ECONNRESET"],
    "send": ["EINTR", "ENOMEM", "EPIPE"],
    "writev socket": ["EINTR", "ENOMEM", "EPIPE"],
    "sendmsg": ["EINTR", "ENOMEM"],
    "socket": ["EMFILE", "ENOMEM"],
    "bind": ["EADDRINUSE"],
    "connect": ["ECONNREFUSED", "ENOMEM"],
    "epoll_create": ["EMFILE"],
    "eventfd": ["EMFILE"],
    "socketpair": ["EMFILE"],
    "epoll_ctl": ["ENOMEM"],
    "epoll_wait": ["EINTR"],
    "start": ["EAGAIN"],
    "getsockname": ["ENOBUFS"],
    "getsockopt": ["ENOBUFS"],
    "setsockopt": ["ENOBUFS"],
}
# Errors of all other calls.
OTHERS = ["EIO"]
# Number of consecutive failures of an allocation that stands for a lack of memory.
FOREVER = 1_000_000
# Maximum number of calls of a point that a full run tries.
MANY = 40


def of_calls(counts, is_full):
    """Returns the faults of calls on files and sockets, each for one call. A short run tries the first and the last
    call of each point with one error, a full run many calls with all errors."""
    faults = []
    for point in sorted(counts):
        call = point.split(" ", 1)[0]
        if call == "allocate":
            continue
        errors = ERRORS.get(point, ERRORS.get(call, OTHERS))
        last = counts[point]
        numbers = range(1, last + 1, math.ceil(last / MANY)) if is_full else sorted({1, last})
        is_socket = point.endswith((" socket", " events"))
        # Which thread makes the last call on a socket depends on the time.
        numbers = numbers if is_full or not is_socket else sorted({1, max(1, last // 2)})
        for error in errors if is_full or is_socket else errors[:1]:
            faults += [Fault(point, first=number, error=error) for number in numbers]
    return faults


def of_allocations(stacks, size, is_lasting):
    """Returns the faults of memory: for each place that allocates, one failure, or failures without end."""
    return [Fault(point, times=FOREVER if is_lasting else 1, size=size) for point in sorted(stacks)]


def periodic():
    """Returns faults in which many allocations fail, each once."""
    return [Fault(every=period) for period in [3, 101, 1009]]
