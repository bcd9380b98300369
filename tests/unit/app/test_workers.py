"""The supervisor's workers: always a live process behind each slot, and who holds what."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import pytest

from hotswap.app.workers import Workers
from hotswap.core.routing import RouteTable
from hotswap.core.spec import Limits
from hotswap.ipc.messages import Counted, Tripped, Wanted, WorkerSpec
from tests.unit.app import children


def table(revision: int, stable: str = "drains", index: int = 1) -> RouteTable:
    return RouteTable("m", index, revision, stable, None, ())


T = TypeVar("T")


class Rig:
    """Workers of two slots, and what they told."""

    def __init__(self) -> None:
        self.sockets = [socket.socket() for _ in range(2)]
        self.devnull = os.open(os.devnull, os.O_RDONLY)
        self.changed: list[int] = []
        self.drained: list[int] = []
        self.wanted: list[Wanted] = []
        self.counted: list[Counted] = []
        self.tripped: list[Tripped] = []
        self.tables: tuple[RouteTable, ...] = ()
        self.specs: list[WorkerSpec] = []
        self.never_up = False
        self.news = asyncio.Event()
        self.workers = Workers(
            self.sockets, self.devnull, self.devnull, self._spec,
            lambda index: self._hear(self.drained, index),
            lambda message: self._hear(self.wanted, message),
            lambda live: self._hear(self.changed, live),
            lambda message: self._hear(self.counted, message),
            lambda message: self._hear(self.tripped, message),
        )  # fmt: skip

    def _hear(self, into: list[T], what: T) -> None:
        into.append(what)
        self.news.set()

    def _spec(self, slot: int, number: int, tally: str) -> WorkerSpec:
        spec = WorkerSpec(
            slot=slot, incarnation=number, workers=2, runtime_dir="", limits=Limits(), token=None,
            access_log=self.never_up, log_level="info", log_format="auto", readiness="stable",
            tables=self.tables, started=False, tally=tally,
        )  # fmt: skip
        self.specs.append(spec)
        self.news.set()
        return spec

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.news.clear()
                await self.news.wait()

    @property
    def listening(self) -> int:
        return sum(worker.listening for worker in self.workers.live)


def spawn_worker(
    module: str, arguments: Sequence[str], fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    """A stand-in for the worker."""
    assert module == "hotswap.app.worker"
    return children.run(children.WORKER, arguments, fds)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr("hotswap.app.workers.start", spawn_worker)
    rig = Rig()
    await rig.workers.open()
    await rig.until(lambda: rig.listening == 2)
    yield rig
    rig.workers.stop(0.0)
    rig.workers.kill()
    await rig.until(lambda: not rig.workers.live)
    for sock in rig.sockets:
        sock.close()
    os.close(rig.devnull)


async def test_each_slot_has_a_worker(rig: Rig) -> None:
    """With its own number and its own tally file."""
    assert sorted(spec.slot for spec in rig.specs) == [0, 1]
    assert {spec.tally for spec in rig.specs} == {"0.0", "1.0"}
    assert rig.changed[-1] == 2
    assert len(rig.workers.pids()) == 2


async def test_a_dead_worker_is_replaced(rig: Rig) -> None:
    """In its slot, on its socket, with its tally file: its counts go on."""
    first = next(worker for worker in rig.workers.live if worker.slot == 1)
    assert first.watch is not None
    os.kill(first.watch.pid, signal.SIGKILL)
    await rig.until(lambda: first not in rig.workers.live and rig.listening == 2)
    assert rig.specs[-1].slot == 1
    assert rig.specs[-1].incarnation == 3
    assert rig.specs[-1].tally == "1.0"
    assert 1 in rig.changed


async def test_acknowledgements_are_awaited_and_counted(rig: Rig) -> None:
    """Until all have it, or for as long as was said."""
    rig.workers.push(table(5))
    assert await rig.workers.wait_acks(1, 5, 10.0) == 2
    assert await rig.workers.wait_acks(1, 6, 0.01) == 0
    assert await rig.workers.wait_acks(2, 1, 0.01) == 0


async def test_the_lowest_revision_that_any_worker_may_hold(rig: Rig) -> None:
    """After a flip it is the one before, until every worker has said that it holds no older."""
    rig.workers.published(1, previous=4)
    assert rig.workers.lowest(1, 5) == 4
    rig.workers.push(table(5, "keeps"))
    await rig.workers.wait_acks(1, 5, 10.0)
    assert rig.workers.lowest(1, 5) == 4
    rig.workers.push(table(6))
    await rig.until(lambda: rig.drained.count(1) == 2)
    assert rig.workers.lowest(1, 6) == 6
    assert rig.workers.lowest(9, 3) == 3


async def test_a_worker_that_dies_holds_nothing(rig: Rig) -> None:
    """What only a dead process held is drained; its successor begins with the present tables."""
    rig.workers.published(1, previous=4)
    rig.tables = (table(5),)
    for worker in list(rig.workers.live):
        assert worker.watch is not None
        worker.watch.kill()
    await rig.until(lambda: rig.drained == [1, 1] and rig.listening == 2)
    assert rig.workers.lowest(1, 5) == 5
    assert rig.specs[-1].tables == (table(5),)


async def test_a_workers_wish_is_passed_on(rig: Rig) -> None:
    """A client asked for a version that is not warm."""
    rig.workers.push(table(1, "wants"))
    await rig.until(lambda: len(rig.wanted) == 2)
    assert rig.wanted[0] == Wanted("m", "v2")


async def test_a_silent_worker_is_killed(rig: Rig) -> None:
    """A loop that stands still loses its place to another process."""
    silent = rig.workers.live[0]
    silent.heard -= 60
    rig.workers.check()
    await rig.until(lambda: silent not in rig.workers.live and rig.listening == 2)
    assert silent.watch is not None
    assert not silent.watch.alive


async def test_a_worker_that_comes_up_slowly_is_not_killed_for_it(rig: Rig) -> None:
    """Importing takes a while on a busy machine."""
    rig.never_up = True
    old = rig.workers.live[0]
    assert old.watch is not None
    old.watch.kill()
    await rig.until(lambda: len(rig.specs) == 3)
    slow = next(worker for worker in rig.workers.live if not worker.listening)
    slow.heard -= 10
    rig.workers.check()
    assert slow.watch is None or slow.watch.alive
    # It does not wait for a worker that cannot answer either.
    rig.workers.push(table(5))
    assert await rig.workers.wait_acks(1, 5, 10.0) == 1


async def test_a_reload_replaces_every_worker_after_its_successor_accepts(rig: Rig) -> None:
    """Two at a time in a slot, each with its own tally file; the old ones are told to stop."""
    old = list(rig.workers.live)
    await rig.workers.reload()
    assert {spec.tally for spec in rig.specs[2:]} == {"0.1", "1.1"}
    await rig.until(lambda: not set(old) & set(rig.workers.live) and rig.listening == 2)
    assert len(rig.workers.live) == 2
    assert len(rig.specs) == 4


async def test_stopping_ends_them_for_good(rig: Rig) -> None:
    """Nobody is started in the place of one that was told to stop."""
    rig.workers.stop(1.0)
    await rig.until(lambda: not rig.workers.live)
    assert len(rig.specs) == 2
    assert rig.workers.pids() == set()


async def test_two_reloads_at_once_leave_one_worker_a_slot(rig: Rig) -> None:
    """The second may come before the first one's workers accept: all older ones are told to stop."""
    old = list(rig.workers.live)
    await rig.workers.reload()
    await rig.workers.reload()
    await rig.until(lambda: not set(old) & set(rig.workers.live))
    await rig.until(lambda: len(rig.workers.live) == 2 and rig.listening == 2)
    assert {worker.number for worker in rig.workers.live} == {5, 6}


async def test_a_worker_that_cannot_be_started_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork may fail for want of memory: the slot is not given up."""
    failures = 0

    def start(*args: object) -> subprocess.Popen[bytes]:
        nonlocal failures
        failures += 1
        monkeypatch.undo()
        monkeypatch.setattr("hotswap.app.workers.start", spawn_worker)
        raise BlockingIOError(11, "no more processes")

    monkeypatch.setattr("hotswap.app.workers._RETRY_SECONDS", 0.0)
    monkeypatch.setattr("hotswap.app.workers.start", start)
    first = rig.workers.live[0]
    assert first.watch is not None
    os.kill(first.watch.pid, signal.SIGKILL)
    await rig.until(lambda: first not in rig.workers.live and rig.listening == 2)
    assert failures == 1
    assert len(rig.workers.live) == 2


async def test_what_a_worker_counted_and_its_breaker_are_passed_on(rig: Rig) -> None:
    """Each worker's windows and trips reach the supervisor's hands."""
    rig.workers.push(table(5, "counts"))
    await rig.until(lambda: len(rig.tripped) == len(rig.counted) == 2)
    assert [message.windows[0].number for message in rig.counted] == [7, 7]
    assert {(message.index, message.test, message.failures) for message in rig.tripped} == {
        (1, "t", 5)
    }
