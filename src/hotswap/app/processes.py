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

from hotswap.config import child_environment


def start(
    module: str,
    arguments: Sequence[str],
    descriptors: Sequence[int],
    extra_environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``python -m module`` with only these descriptors and a clean environment."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        pass_fds=tuple(descriptors),
        stdin=subprocess.DEVNULL,
        env=child_environment() | dict(extra_environment or {}),
    )


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
    """Calls ``on_exit(status)`` once when a child process ends. The process must be our child."""

    def __init__(self, pid: int, on_exit: Callable[[int], None]) -> None:
        self.pid = pid
        self.started = time.monotonic()
        self._on_exit = on_exit
        self._fd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._exited)
        self.alive = True

    def _exited(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self.alive = False
        status = 0
        with contextlib.suppress(ChildProcessError):
            _, raw = os.waitpid(self.pid, 0)
            status = os.waitstatus_to_exitcode(raw)
        self._on_exit(status)

    def signal(self, number: int) -> None:
        """Through the descriptor: never another process that got the same number."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)


def reap_strangers(known: set[int]) -> None:
    """Collect orphans that were adopted from below (a model's own children), and none of ours."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in known:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)


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
