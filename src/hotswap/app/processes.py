"""Child processes of the supervisor: started by exec, watched by descriptor, never orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hotswap.app import platform
from hotswap.config import child_environment

_ASK_SECONDS: Final = 0.02


def start(
    module: str,
    arguments: Sequence[str],
    descriptors: Sequence[int],
    extra_environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``python -m module`` with only these descriptors and a clean environment.

    The process is to be collected by a `Watch`: the object given back never waits for it.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        pass_fds=tuple(descriptors),
        stdin=subprocess.DEVNULL,
        env=child_environment() | dict(extra_environment or {}),
        process_group=0,  # a terminal's Ctrl-C is the supervisor's business alone
    )
    process.returncode = 0  # or it would be collected when the object goes
    return process


def pair() -> tuple[socket.socket, socket.socket]:
    """(ours, the child's): a stream for messages; its end of file tells that the other is gone."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def describe_exit(status: int) -> str:
    """How a process ended, for people. ``status`` as `os.waitstatus_to_exitcode` gives it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (perhaps for memory)" if status == -signal.SIGKILL else ""
    return f"killed by {name}{hint}"


class Watch:
    """Calls ``on_exit(status)`` once when a child process ends. The process must be our child.

    Through a descriptor where the system has one of processes, else by asking every 20 ms.
    """

    def __init__(self, pid: int, on_exit: Callable[[int], None]) -> None:
        self.pid = pid
        self.started = time.monotonic()
        self._on_exit = on_exit
        self._status = 0
        self._loop = asyncio.get_running_loop()
        self.alive = True
        self._fd = _pidfd(pid)
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._exited, self._fd)
        else:
            self._loop.call_later(_ASK_SECONDS, self._ask)

    def _exited(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        os.close(fd)
        self._collect(0)
        self._on_exit(self._status)

    def _ask(self) -> None:
        if self.alive and not self._collect(os.WNOHANG):
            self._loop.call_later(_ASK_SECONDS, self._ask)
        else:
            self._on_exit(self._status)

    def _collect(self, options: int) -> bool:
        """Whether it has ended; it is then collected."""
        try:
            pid, raw = os.waitpid(self.pid, options)
        except ChildProcessError:  # somebody else has: how it ended cannot be known
            self.alive = False
            return True
        if pid == 0:
            return False
        self._status = os.waitstatus_to_exitcode(raw)
        self.alive = False
        return True

    def signal(self, number: int) -> None:
        """Never to another process that got the same number."""
        if not self.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._fd is not None:
                signal.pidfd_send_signal(self._fd, number)
            elif not self._collect(os.WNOHANG):  # not collected: the number is still its own
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)


def reap_strangers(known: set[int]) -> None:
    """Collect orphans that were adopted from below (a model's own children), and none of ours.

    Only a subreaper is given any (`platform.become_subreaper`).
    """
    while platform.LINUX:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in known:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)


def _pidfd(pid: int) -> int | None:
    """A descriptor of the process; None where there is no such thing, or no such process."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an older kernel, or a sandbox that refuses the call
        return None


class Backoff:
    """Waits before restarts: none for the first few, growing while the process keeps dying young.

    >>> backoff = Backoff(young=10.0)
    >>> [backoff.delay(0.1) for _ in range(5)], backoff.delay(60.0)
    ([0.0, 0.0, 0.0, 0.25, 0.5], 0.0)
    """

    def __init__(self, young: float = 10.0, longest: float = 10.0) -> None:
        self._young = young
        self._longest = longest
        self._deaths = 0

    def delay(self, lived: float) -> float:
        """Seconds to wait after a process that lived so many seconds."""
        self._deaths = self._deaths + 1 if lived < self._young else 1
        if self._deaths <= 3:
            return 0.0
        return float(min(self._longest, 0.25 * 2 ** (self._deaths - 4)))
