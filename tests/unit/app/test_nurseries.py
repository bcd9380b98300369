"""Nurseries: one forks, a spare stands by, and no host that was asked for is forgotten."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest

from hotswap.app.nurseries import Nurseries
from hotswap.ipc.messages import Fork, Forked
from tests.unit.app import children


class Rig:
    """Nurseries of stand-ins; ``started`` are the runtimes that each one was to import."""

    def __init__(self) -> None:
        self.devnull = os.open(os.devnull, os.O_RDONLY)
        self.forked: list[Forked] = []
        self.started: list[str] = []
        self.news = asyncio.Event()
        self.nurseries = Nurseries(self.devnull, "/tmp", self._forked)

    def _forked(self, message: Forked) -> None:
        self.forked.append(message)
        self.news.set()

    def fork(self, host: str, runtime: str = "one") -> socket.socket:
        """Ask for a host; our end of its channel."""
        ours, theirs = socket.socketpair()
        self.nurseries.fork(Fork(host, 1, 0), runtime, theirs)
        return ours

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.news.clear()
                try:
                    await asyncio.wait_for(self.news.wait(), 0.01)
                except TimeoutError:
                    continue


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    rig = Rig()

    def start(
        module: str, arguments: Sequence[str], fds: Sequence[int], more: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        assert module == "hotswap.app.nursery"
        assert more["OMP_NUM_THREADS"] == "1"
        rig.started.append(next(a for a in arguments if a.startswith("--runtimes=")).split("=")[1])
        return children.run(children.NURSERY, arguments, fds)

    monkeypatch.setattr("hotswap.app.nurseries.start", start)
    yield rig
    watches = [n.watch for n in (rig.nurseries._current, rig.nurseries._spare) if n is not None]
    rig.nurseries.close()
    await rig.until(lambda: not any(watch.alive for watch in watches))
    os.close(rig.devnull)


async def test_a_host_is_forked_with_its_channel(rig: Rig) -> None:
    """The nursery hands the child the descriptor that it was sent."""
    rig.nurseries.open(["one"])
    with rig.fork("a") as ours:
        await rig.until(lambda: bool(rig.forked))
        assert (rig.forked[0].host, rig.forked[0].incarnation) == ("a", 1)
        assert rig.forked[0].pid in rig.nurseries.pids
        assert ours.recv(10) == b"forked"
        assert ours.recv(10) == b""  # nobody else holds the child's end
    assert rig.started == ["one"]


async def test_a_runtime_that_is_missing_is_imported_first(rig: Rig) -> None:
    """And remembered for every nursery to come."""
    rig.nurseries.open([])
    with rig.fork("a", "two"):
        await rig.until(lambda: bool(rig.forked))
    assert rig.nurseries.runtimes == ("two",)
    rig.nurseries.keep_spare()
    assert rig.started == ["", "two"]


async def test_the_spare_takes_over_and_forks_what_was_asked(rig: Rig) -> None:
    """A nursery that dies while it forks costs a moment, not the host."""
    rig.nurseries.open(["one"])
    rig.nurseries.keep_spare()
    rig.nurseries.keep_spare()
    assert len(rig.started) == 2
    first, spare = rig.nurseries.pids
    current = rig.nurseries._current
    assert current is not None
    current.watch.kill()
    with rig.fork("a") as ours:
        await rig.until(lambda: bool(rig.forked))
        assert rig.forked[0].pid == spare != first
        assert ours.recv(10) == b"forked"
    assert len(rig.forked) == 1


async def test_without_a_spare_a_new_nursery_is_started(rig: Rig) -> None:
    """It is asked again for everything that was not forked."""
    rig.nurseries.open(["one"])
    current = rig.nurseries._current
    assert current is not None
    current.watch.kill()
    with rig.fork("a"), rig.fork("b"):
        await rig.until(lambda: len(rig.forked) == 2)
    assert [message.host for message in rig.forked] == ["a", "b"]
    assert rig.started == ["one", "one"]


async def test_a_nursery_in_use_does_not_stop_to_import(rig: Rig) -> None:
    """The spare imports what is wanted, and takes the place of the one in use."""
    rig.nurseries.open(["one"])
    with rig.fork("a"):
        await rig.until(lambda: bool(rig.forked))
    first = rig.nurseries.pids[0]
    rig.nurseries.keep_spare()
    rig.nurseries.want(["two"])
    await rig.until(lambda: rig.nurseries.pids[0] != first)
    with rig.fork("b", "two"):
        await rig.until(lambda: len(rig.forked) == 2)
    assert rig.forked[1].pid != first
    assert rig.nurseries.pids[1] == first


async def test_an_idle_nursery_imports_itself(rig: Rig) -> None:
    """One that has forked nothing is not replaced for an import."""
    rig.nurseries.open(["one"])
    rig.nurseries.want(["two", "one"])
    rig.nurseries.want(["two"])
    assert rig.nurseries.runtimes == ("one", "two")
    assert len(rig.started) == 1
    with rig.fork("a", "two"):
        await rig.until(lambda: bool(rig.forked))


async def test_closing_ends_them_and_starts_no_other(rig: Rig) -> None:
    """End of file is all that they need."""
    rig.nurseries.open(["one"])
    rig.nurseries.keep_spare()
    watches = [n.watch for n in (rig.nurseries._current, rig.nurseries._spare) if n is not None]
    rig.nurseries.close()
    await rig.until(lambda: not any(watch.alive for watch in watches))
    assert len(rig.started) == 2
