"""Watching a child process, with a descriptor of it and without."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from hotswap.app.processes import Watch, start


@pytest.fixture(params=["pidfd", "refused", "polling"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to watch: by descriptor, where the kernel refuses one, where there are none."""

    def refuse(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    if request.param == "refused":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    elif request.param == "polling":
        monkeypatch.delattr(os, "pidfd_open")
        monkeypatch.delattr(signal, "pidfd_send_signal")


pytestmark = [pytest.mark.usefixtures("_way"), pytest.mark.timeout(60)]


def child(code: str) -> int:
    """A child process that nobody else will collect."""
    process = subprocess.Popen([sys.executable, "-c", code])
    process.returncode = 0
    return process.pid


async def watched(pid: int) -> tuple[Watch, asyncio.Future[int]]:
    """The watch, and its status to be."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    return Watch(pid, ended.set_result), ended


async def test_tells_the_exit_status() -> None:
    """A child's exit is told once, with its status, and the child is collected."""
    pid = child("raise SystemExit(7)")
    watch, ended = await watched(pid)
    assert await ended == 7
    assert watch.alive is False
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


async def test_kills() -> None:
    """A child that would never end is killed, and that is told."""
    watch, ended = await watched(child("import time; time.sleep(3600)"))
    watch.kill()
    watch.kill()
    assert await ended == -signal.SIGKILL


async def test_a_process_that_is_gone_gets_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is collected nothing is sent to its number, which may be another's by then."""
    pid = child("")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended; nobody has collected it
    watch, ended = await watched(pid)
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(pid))
    watch.signal(signal.SIGTERM)
    assert await ended == 0
    watch.signal(signal.SIGTERM)
    assert sent == []


async def test_started_processes_are_collected_by_the_watch_alone() -> None:
    """Starting another process does not collect one that a watch has."""
    first = start("hotswap.app.no_such_module", [], []).pid
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    second = start("hotswap.app.no_such_module", [], []).pid
    statuses = [await (await watched(pid))[1] for pid in (first, second)]
    assert statuses == [1, 1]
