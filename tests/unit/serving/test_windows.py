"""Windows: a request is counted once, where it arrived, and reported when that is complete."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.core.routing import WHOLE, Split, assign, hashed, place
from hotswap.core.windows import FIRST, WINDOW_NS
from hotswap.errors import HotswapError
from hotswap.ipc.frames import Failure
from hotswap.serving import windows as windows_module
from hotswap.serving.attempt import BASELINE, CANDIDATE, TWIN
from hotswap.serving.windows import Trial, Windows
from hotswap.stats.buckets import TIMEOUT
from tests.unit.serving.conftest import Rig, ask

SPLIT = Split("t", 3, "v2", "v1", weight=500, salt="s", budget_ms=100.0, twin_weight=500)


class Waiting:
    """A request that is not decided."""

    def __init__(self) -> None:
        self.over = 0

    def overdue(self) -> None:
        self.over += 1


def test_a_window_is_reported_once_it_is_over_and_decided() -> None:
    """Not before its end, not while a request of it runs, and only once."""
    windows = Windows("w")
    now = 10 * WINDOW_NS + 5
    window = windows.at(SPLIT, now)
    assert windows.at(SPLIT, now + 100) is window
    window.counts.excluded = 1
    waiting = Waiting()
    window.running.add(waiting)
    assert windows.due(now) == []
    assert windows.due(11 * WINDOW_NS + 1) == []
    window.running.discard(waiting)
    (found,) = windows.due(11 * WINDOW_NS + 1)
    assert (found.test, found.stage, found.number, found.worker) == ("t", 3, 10, "w")
    assert (found.weight, found.twin_weight) == (500, 500)
    assert windows.due(12 * WINDOW_NS) == []
    assert waiting.over == 0


def test_what_runs_past_every_budget_is_over() -> None:
    """The window ends with it; it is told, and counts as what it then is."""
    windows = Windows("w")
    window = windows.at(SPLIT, 0)
    window.counts.excluded = 1
    waiting = Waiting()
    window.running.add(waiting)
    assert windows.due(WINDOW_NS + 100_000_000) == []
    assert len(windows.due(window.limit_ns + 1)) == 1
    assert waiting.over == 1


def test_an_empty_window_is_not_sent() -> None:
    """Nothing was counted in it: nothing is said."""
    windows = Windows("w")
    windows.at(SPLIT, 0)
    assert windows.due(10 * WINDOW_NS) == []
    assert windows.tests() == set()


def test_units_beyond_the_bound_are_reported_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control knows which came first; this worker only saves it work."""
    monkeypatch.setattr(windows_module, "UNITS", 2)
    trial = Trial("t", lambda failures: None)
    assert [trial.is_new(unit, FIRST) for unit in (1, 2, 1, 2)] == [True, True, False, False]
    assert [trial.is_new(3, FIRST) for _ in range(2)] == [True, True]
    assert trial.is_new(1, 1)
    assert not trial.is_new(1, 1)


def test_latency_is_taken_of_one_request_at_a_time() -> None:
    """Compared arms share one turn every 50 ms; a baseline that has a twin has its own."""
    trial = Trial("t", lambda failures: None)
    gap = windows_module.LATENCY_GAP_NS
    assert [trial.is_timed(arm, True, 1) for arm in (TWIN, CANDIDATE, BASELINE, BASELINE)] == [
        True, False, True, False,
    ]  # fmt: skip
    assert not trial.is_timed(CANDIDATE, True, gap)
    assert trial.is_timed(CANDIDATE, True, 1 + gap)
    alone = Trial("t", lambda failures: None)
    assert [alone.is_timed(arm, False, 1) for arm in (BASELINE, CANDIDATE)] == [True, False]


async def test_only_a_requests_own_turn_gives_its_latency(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others count as requests and with their values all the same."""
    monkeypatch.setattr(windows_module, "LATENCY_GAP_NS", 3_600_000_000_000)
    await rig.divide()
    rig.coins(9_000)
    for _ in range(3):
        await ask(rig.plane.lease("m", None, None), 1.0)
    arm = rig.arm("baseline")
    assert (arm.requests, sum(arm.latency.values()), sum(arm.values.values())) == (3, 1, 3)


async def test_a_running_request_is_a_timeout_when_its_window_ends(rig: Rig) -> None:
    """A baseline that answers much later is counted with its window, not afterwards."""
    baseline, _ = await rig.divide()
    baseline.hold = True
    rig.coins(9_000)
    task = asyncio.create_task(ask(rig.plane.lease("m", None, None), 1.0))
    await baseline.until(lambda: len(baseline.calls) == 1)
    (window,) = rig.counted()
    assert (window.arms["baseline"].timeouts, window.arms["baseline"].latency) == (1, {TIMEOUT: 1})
    baseline.release()
    assert await task == [2.0]
    assert rig.counted() == [window]
    assert window.arms["baseline"].requests == 1


async def test_the_tick_reports_and_forgets_tests_that_are_over(rig: Rig) -> None:
    """Windows go out on the worker's timer; units seen go with their test."""
    await rig.divide()
    await ask(rig.plane.lease("m", None, b"k"), 1.0)
    async with asyncio.timeout(10):
        while not rig.windows:
            rig.plane.tick(1)
            await asyncio.sleep(0.02)
    assert [event.kind for event in rig.windows[0].units] == [FIRST]
    assert set(rig.plane._trials._trials) == {"t"}
    rig.commit(rig.table(2, "v1", *rig.plane.table("m").versions))
    rig.plane.tick(2)
    assert not rig.plane._trials._trials


async def test_a_breaker_that_trips_says_so_once(rig: Rig) -> None:
    """After a few failures nothing is sent to the candidate; the coin is tossed and charged."""
    baseline, candidate = await rig.divide()
    candidate.fail = lambda number: Failure([number], "model", "no", "")
    fallbacks = []
    rig.coins(*[0, 9_000] * 20)
    for _ in range(40):
        lease = rig.plane.lease("m", None, None)
        assert await ask(lease, 1.0) == [2.0]
        fallbacks.append(lease.fallback)
    tripped = [said for said in rig.said if said[0] == "tripped"]
    assert len(tripped) == 1
    assert tripped[0] == ("tripped", "t", len(candidate.calls))
    assert 5 <= len(candidate.calls) <= 9
    assert fallbacks.count("breaker") == 20 - len(candidate.calls)
    assert (rig.arm("candidate").requests, rig.arm("candidate").errors) == (20, 20)
    assert len(baseline.calls) == 40
    # A later table of the same test finds it tripped; another attempt begins anew.
    await rig.divide(revision=2, stage=2)
    rig.coins(0)
    lease = rig.plane.lease("m", None, None)
    await ask(lease, 1.0)
    assert lease.fallback == "breaker"
    candidate.fail = None
    await rig.divide(revision=3, test="t2")
    lease = rig.plane.lease("m", None, None)
    await ask(lease, 1.0)
    assert (lease.version, lease.fallback) == ("v2", None)


HAZARDS = ("ok", "ok", "ok", "fails", "nan", "slow", "dies", "cancelled")


@pytest.mark.parametrize("seed", range(6))
async def test_every_assigned_request_is_counted_exactly_once(rig: Rig, seed: int) -> None:
    """Whatever fails, dies or goes away: requests = ok + errors + timeouts + invalid, once each."""
    chance = random.Random(seed)
    hosts = await rig.divide(twin=True, budget_ms=60.0, pair=bool(seed % 2))
    rig.plane.coin = lambda: chance.getrandbits(64)
    tossed = 0

    async def one(cancel: bool) -> None:
        lease = rig.plane.lease("m", None, None)
        task = asyncio.create_task(ask(lease, 1.0, seconds=5.0))
        if cancel:
            await asyncio.sleep(0.005)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            error = task.exception()
            assert error is None or isinstance(error, HotswapError)

    for _ in range(25):
        victim, what = chance.choice(hosts), chance.choice(HAZARDS)
        for host in hosts:
            host.factor, host.fail = 2.0, None
        victim.hold = what in ("slow", "cancelled")
        victim.factor = float("nan") if what == "nan" else 2.0
        victim.fail = (lambda n: Failure([n], "model", "no", "")) if what == "fails" else None
        group = [asyncio.create_task(one(what == "cancelled")) for _ in range(4)]
        tossed += 4
        if what == "dies":
            await asyncio.sleep(0.002)
            victim.die()
            await victim.start()
        elif what == "slow":
            await asyncio.sleep(0.08)
        victim.release()
        await asyncio.gather(*group)
    async with asyncio.timeout(10):
        while rig.plane.routes["m"].leases:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
    arms = [rig.arm(name) for name in ("baseline", "twin", "candidate")]
    assert sum(arm.requests for arm in arms) == tossed
    for arm in arms:
        good = sum(arm.values.values())
        assert good + arm.errors + arm.timeouts + arm.invalid == arm.requests
        assert arm.latency.get(TIMEOUT, 0) <= arm.timeouts
    assert rig.plane.mirror.rows == 0
    assert not rig.plane.windows._open


def split_of(weight: int, twin: int = 0) -> Split:
    return Split("t", 1, "v2", "v1", weight=weight, salt="s", budget_ms=1.0, twin_weight=twin)


@given(
    key=st.binary(min_size=1, max_size=40),
    weights=st.lists(st.integers(0, WHOLE // 2), min_size=2, max_size=8).map(sorted),
)
def test_raising_the_weight_moves_keys_only_to_the_candidate(key: bytes, weights: Any) -> None:
    """Once a key is the candidate's it stays so; baseline and twin only ever lose keys to it."""
    at = place(hashed("s", key))
    arms = [assign(split_of(weight, min(weight, WHOLE - weight)), at) for weight in weights]
    reached = [arm == "candidate" for arm in arms]
    assert reached == sorted(reached)


@settings(max_examples=10, deadline=None)
@given(salt=st.text(min_size=1, max_size=8), weight=st.integers(500, 5_000))
def test_keys_and_coins_split_by_weight(salt: str, weight: int) -> None:
    """A chi-square over three arms, of keys and of coins: far from absurd (p above 1e-6)."""
    many = 20_000
    chance = random.Random(salt)
    for units in (
        [hashed(salt, b"user-%d" % n) for n in range(many)],
        [chance.getrandbits(64) for _ in range(many)],
    ):
        found = {"candidate": 0, "twin": 0, "baseline": 0}
        for unit in units:
            found[assign(split_of(weight, 500), place(unit))] += 1
        share = {"candidate": weight, "twin": 500, "baseline": WHOLE - weight - 500}
        chi = sum((found[a] - many * s / WHOLE) ** 2 / (many * s / WHOLE) for a, s in share.items())
        assert chi < 27.6
