"""The frames that a link holds back: none for longer than a sweep, and no count that drifts."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import numpy as np
import pytest

from hotswap.core.routing import HostRef
from hotswap.errors import HotswapError, ModelFailed
from hotswap.ipc.frames import Call, Failure, Layout
from hotswap.ipc.words import HEALTH_WORDS, Health, Words
from hotswap.serving.link import HostLink, Pending, Reply
from hotswap.serving.recovery import Recovery
from tests.unit.serving.hosts import FakeHost

X = (Layout("x", "FP64", ()),)
Z = (Layout("z", "FP64", ()),)
#: Far longer than the sweep, far shorter than the deadlines.
_STUCK = 5.0


def _future(pending: Pending) -> asyncio.Future[Reply]:
    """What this test's requests are settled by."""
    assert isinstance(pending.future, asyncio.Future)
    return pending.future


class _Case:
    """A link to a fake host. What the host loses is sent again as in a worker."""

    def __init__(self, folder: Path) -> None:
        self.health = Health(Words.create("test-link", HEALTH_WORDS))
        self.host = FakeHost(folder, "one", 0, self.health)
        self.recovery = Recovery(self.health, 0)
        self.link = HostLink(HostRef("one", "hone", 0), str(folder), self._lost)
        self.sent: list[asyncio.Future[Reply]] = []

    def _lost(self, link: HostLink, lost: list[Pending]) -> None:
        self.recovery.lost(link, lost, [link], True)

    def ask(
        self, value: float, layout: tuple[Layout, ...] = X, seconds: float = 60.0
    ) -> tuple[int, Pending]:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.sent.append(future)
        raw = np.array([value]).tobytes()
        pending = Pending(layout, (), [raw], 1, time.monotonic() + seconds, future)
        return self.link.call(pending), pending

    def give_up(self, number: int, pending: Pending) -> None:
        """As the plane does for a client that has gone."""
        if _future(pending).cancel():
            self.link.cancel(number)
            self.recovery.forget(pending)

    async def open(self) -> None:
        await self.host.start()
        async with asyncio.timeout(_STUCK):
            await self.link.connected.wait()

    async def close(self) -> None:
        self.link.close()
        await self.host.stop()


@pytest.fixture
async def case(runtime_dir: Path) -> _Case:
    return _Case(runtime_dir)


async def _hold_two_frames(case: _Case) -> list[tuple[int, Pending]]:
    """The host has two frames of a model that was brief: what comes next is held back."""
    await case.open()
    case.ask(0.0)
    await asyncio.wait_for(case.sent[0], _STUCK)
    case.host.hold = True
    first = case.ask(1.0)
    await case.host.until(lambda: len(case.host.calls) == 2)
    second = case.ask(2.0)
    await case.host.until(lambda: len(case.host.calls) == 3)
    return [first, second]


async def test_what_is_held_back_goes_when_nobody_waits_for_the_rest(case: _Case) -> None:
    """A host whose requests were all cancelled answers nothing: it is not waited for."""
    there = await _hold_two_frames(case)
    case.ask(3.0)
    await asyncio.sleep(0)
    assert len(case.host.calls) == 3
    case.link._sweeper.cancel()  # not by the sweep
    for number, pending in there:
        case.give_up(number, pending)
    await case.host.until(lambda: len(case.host.calls) == 4)
    await case.close()


async def test_the_count_is_right_after_a_sweep_sent_what_was_held(case: _Case) -> None:
    """What the sweep sends beside unanswered requests is counted with them."""
    await _hold_two_frames(case)
    case.ask(3.0)
    await case.host.until(lambda: len(case.host.calls) == 4)
    assert case.link._at_host == 3
    case.host.release()
    await asyncio.wait_for(asyncio.gather(*case.sent), _STUCK)
    assert (case.link._at_host, case.link.outstanding_rows) == (0, 0)
    await case.close()


async def test_a_closed_link_refuses_at_once(case: _Case) -> None:
    """Nobody waits for a host that no table names any more."""
    case.link.close()
    _, pending = case.ask(1.0)
    with pytest.raises(ModelFailed, match="unloaded"):
        await asyncio.wait_for(_future(pending), _STUCK)
    assert case.link.outstanding_rows == 0
    await case.close()


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_stuck_and_every_count_returns_to_nothing(case: _Case, seed: int) -> None:
    """Answers, failures, deaths, cancels and short deadlines at random: each request ends."""
    chance = random.Random(seed)
    await case.open()
    asked: list[tuple[int, Pending]] = []

    def failing(_: int) -> Failure:
        return Failure(case.host.calls[-1].ids, "model", "no")

    for turn in range(400):
        seconds = chance.choice((60.0, 60.0, 0.01))
        asked.append(case.ask(float(turn), chance.choice((X, X, Z)), seconds))
        action = chance.random()
        if action < 0.25:
            case.give_up(*chance.choice(asked))
        elif action < 0.35:
            case.host.hold = True
        elif action < 0.6:
            case.host.release()
        elif action < 0.65:
            case.host.fail = failing
        elif action < 0.75:
            case.host.fail = None
        elif action < 0.77 and case.link.connected.is_set():
            case.host.die()
            await case.host.start()
        if chance.random() < 0.5:
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.0005)))
    case.host.fail = None
    case.host.release()
    outcomes = await asyncio.wait_for(
        asyncio.gather(*case.sent, return_exceptions=True), 2 * _STUCK
    )
    for turn, outcome in enumerate(outcomes):
        if isinstance(outcome, Reply):
            ((_, array),) = outcome.outputs
            assert array[outcome.start : outcome.stop].tolist() == [2.0 * turn]
        else:
            assert isinstance(outcome, HotswapError | asyncio.CancelledError)
    for _ in range(1000):  # answers to cancelled requests may be on their way
        if not case.link._pending and not case.link._at_host:
            break
        await asyncio.sleep(0.005)
    assert (len(case.link._pending), case.link._at_host) == (0, 0)
    assert case.link.outstanding_rows == 0
    assert not case.link._groups
    await case.close()


async def test_every_suspect_keeps_its_own_deadline(case: _Case) -> None:
    """One that waits behind a suspect with a later deadline is told at its own."""
    await case.open()
    case.host.hold = True
    case.ask(1.0, seconds=60.0)
    _, late = case.ask(2.0, seconds=0.3)
    await case.host.until(lambda: len(case.host.calls) == 1)
    assert isinstance(case.host.calls[0], Call)
    case.host.die()
    with pytest.raises(HotswapError, match="deadline"):
        await asyncio.wait_for(_future(late), _STUCK)
    await case.close()


async def test_a_link_that_was_closed_meanwhile_is_not_tried(case: _Case) -> None:
    """A lost request goes to an instance that is still served, although it is not up yet."""
    folder = Path(case.host.path).parent
    gone = HostLink(HostRef("gone", "hgone", 1), str(folder), case._lost)
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    raw = np.array([4.0]).tobytes()
    pending = Pending(X, (), [raw], 1, time.monotonic() + 60.0, future)
    gone.close()
    case.recovery.lost(case.link, [pending], [gone, case.link], True)
    await case.open()
    reply = await asyncio.wait_for(future, _STUCK)
    assert reply.outputs[0][1].tolist() == [8.0]
    await case.close()
