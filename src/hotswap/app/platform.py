"""What Linux offers to a tree of processes: death signals, a subreaper, memory readings, limits."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
LINUX: Final = sys.platform == "linux"


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent() -> None:
    """SIGKILL for this process when its parent dies, however busy it is."""
    if LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def become_subreaper() -> None:
    """Orphaned descendants become this process's children."""
    if LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def own_memory(pid: int) -> int:
    """Bytes that only this process holds (unshared pages); 0 if it is gone or cannot be read."""
    total = 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as lines:
        for line in lines:
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1]) * 1024
    return total


def limit_memory(extra_bytes: int) -> None:
    """Let this process's own data grow by at most that: beyond, allocation fails with MemoryError."""
    used = 0
    with contextlib.suppress(OSError), open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith("VmData:"):
                used = int(line.split()[1]) * 1024
    if used:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = used + extra_bytes
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))  # soft: it may be set again


def no_core_dumps() -> None:
    """A model that aborts must not fill the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
