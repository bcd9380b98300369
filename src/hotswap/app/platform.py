"""What the system offers to a tree of processes: death signals, a subreaper, memory readings, limits.

Linux is the full platform. What another one lacks is replaced where it can be, and else left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 10
#: For what may wait for all others.
LOWEST: Final = 19
_PR_SET_CHILD_SUBREAPER: Final = 36
LINUX: bool = sys.platform == "linux"
_PROC: Path = Path("/proc/self")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent() -> None:
    """SIGKILL for this process when its parent dies, however busy it is; nothing but on Linux."""
    if LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with_lifeline(descriptor: int) -> None:
    """End this process, however busy it is, once nobody holds the other end of this pipe.

    For where there is no `die_with_parent`. A call that never lets go of the interpreter's lock
    is ended only when it does.
    """

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(descriptor, 1)  # nobody ever writes: it returns at the end of file
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def become_subreaper() -> None:
    """Orphaned descendants become this process's children; nothing but on Linux."""
    if LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def own_memory(pid: int) -> int:
    """Bytes that only this process holds (unshared pages); 0 if it is gone or cannot be read.

    Where there is no /proc: its resident bytes, as `ps` says, shared pages included.
    """
    if not _PROC.exists():
        return _resident(pid)
    total = 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as lines:
        for line in lines:
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1]) * 1024
    return total


def _resident(pid: int) -> int:
    command = ["ps", "-o", "rss=", "-p", str(pid)]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    text = said.stdout.strip()
    return int(text) * 1024 if text.isdecimal() else 0


def limit_memory(extra_bytes: int) -> None:
    """Let this process's own data grow by at most that: beyond, allocation fails with MemoryError.

    Without /proc there is no such limit: the supervisor's own look at the memory remains.
    """
    used = 0
    with contextlib.suppress(OSError), open(_PROC / "status") as lines:
        for line in lines:
            if line.startswith("VmData:"):
                used = int(line.split()[1]) * 1024
    if used:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = used + extra_bytes
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))  # soft: it may be set again


def yield_to_serving(nice: int = _NICE) -> None:
    """Let the processes that answer requests go first, from now on."""
    with contextlib.suppress(OSError):
        os.nice(nice)
    # A processor that only runs such a process counts as idle: whoever wakes up is put there at
    # once, and not behind somebody who is busy.
    if nice == LOWEST and hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@contextlib.contextmanager
def background() -> Iterator[None]:
    """Let the processes that answer requests go first meanwhile, if this one can come back from it.

    Raising a priority again takes a right that most users do not have. Without it only the
    scheduling class is changed, which anyone may change back.
    """
    batch = hasattr(os, "sched_setscheduler") and hasattr(os, "SCHED_BATCH")
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, before - 1)  # the right to come back, tried first
        os.setpriority(os.PRIO_PROCESS, 0, min(19, before + _NICE))
        restore = True
    except OSError:
        restore = False
    if batch:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        for thread in _threads():  # those that libraries have started meanwhile, too
            with contextlib.suppress(OSError):
                if batch:
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
                if restore:
                    os.setpriority(os.PRIO_PROCESS, thread, before)


def _threads() -> list[int]:
    """This process's threads as the kernel numbers them; 0, the calling one, where it does not tell."""
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]


def raise_file_limit(wanted: int = 65_536) -> None:
    """As many open files as the operator allows, up to ``wanted``: each connection and host takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def no_core_dumps() -> None:
    """A model that aborts must not fill the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
