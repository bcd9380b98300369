"""Copies off the path: sent after or beside the answer, bounded, compared, and felt by nobody."""

from __future__ import annotations

import asyncio
import gc
import math
from typing import Any

import numpy as np
import pytest

from hotswap.core.windows import PairCounts
from hotswap.ipc.frames import Failure
from hotswap.serving import mirror
from hotswap.serving.attempt import Attempt
from tests.unit.serving.conftest import Rig, ask
from tests.unit.serving.hosts import FakeHost

CANDIDATE, BASELINE = 0, 9_000


async def settled(rig: Rig) -> PairCounts:
    """Every copy is done and every pair compared: their sums."""
    async with asyncio.timeout(10):
        while rig.plane.mirror.rows or rig.plane.routes["m"].leases:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
    for _ in range(5):
        await asyncio.sleep(0)
    total = PairCounts()
    for window in rig.counted():
        pairs = window.pairs or PairCounts()
        for name in ("total", "both", "agree", "worse", "better", "neither", "difference"):
            setattr(total, name, getattr(total, name) + getattr(pairs, name))
    return total


def sums(rig: Rig) -> tuple[int, int]:
    return sum(w.mirrored for w in rig.windows), sum(w.dropped for w in rig.windows)


async def shadowed(rig: Rig, **more: object) -> tuple[FakeHost, FakeHost]:
    baseline, candidate = await rig.divide(**{"weight": 0, "mirror": 10_000} | more)  # type: ignore[arg-type]
    rig.coins(BASELINE)
    return baseline, candidate


async def test_a_mirrored_request_is_compared_and_tagged(rig: Rig) -> None:
    """The candidate gets a copy that says so; the answer is the baseline's alone."""
    baseline, candidate = await shadowed(rig)
    assert await ask(rig.plane.lease("m", None, None), 1.0, 2.0) == [2.0, 4.0]
    candidate.factor = 3.0
    await candidate.until(lambda: len(candidate.calls) == 1)
    pairs = await settled(rig)
    assert candidate.values == baseline.values == [[1.0, 2.0]]
    assert (candidate.calls[0].shadow, baseline.calls[0].shadow) == (True, False)
    assert (pairs.total, pairs.both) == (1, 1)
    assert sums(rig) == (1, 0)
    assert rig.arm("baseline").requests == 1
    assert rig.arm("candidate").requests == 0
    stats = {(s.version, s.role): s for s in rig.plane.stats()}
    assert (stats["v2", "shadow"].success, stats["v1", "stable"].success) == (1, 1)


async def test_answers_that_differ_are_told_apart(rig: Rig) -> None:
    """Agreement and the sum of differences."""
    _, candidate = await shadowed(rig)
    await ask(rig.plane.lease("m", None, None), 1.0)
    await settled(rig)
    candidate.factor = 5.0
    await ask(rig.plane.lease("m", None, None), 1.0)
    pairs = await settled(rig)
    assert (pairs.total, pairs.both, pairs.agree, pairs.difference) == (2, 2, 1, 3.0)


async def test_failures_of_either_and_of_both_are_kept_apart(rig: Rig) -> None:
    """worse, better, neither; a request that failed on the baseline is copied too."""
    baseline, candidate = await shadowed(rig)

    def fails(number: int) -> Failure:
        return Failure([number], "model", "no", "")

    candidate.fail = fails
    await ask(rig.plane.lease("m", None, None), 1.0)
    await settled(rig)
    baseline.fail = fails
    await asyncio.gather(ask(rig.plane.lease("m", None, None), 1.0), return_exceptions=True)
    await settled(rig)
    candidate.fail = None
    await asyncio.gather(ask(rig.plane.lease("m", None, None), 1.0), return_exceptions=True)
    pairs = await settled(rig)
    assert (pairs.total, pairs.worse, pairs.neither, pairs.better) == (3, 1, 1, 1)


@pytest.mark.parametrize("how", ["nan", "lost", "slow", "down"])
async def test_a_candidate_without_a_valid_answer_is_worse(rig: Rig, how: str) -> None:
    """Whatever kept it from one; the user has long had an answer."""
    _, candidate = await shadowed(rig, budget_ms=50.0)
    if how == "nan":
        candidate.factor = math.nan
    elif how == "lost":
        candidate.poison = 1.0
    elif how == "slow":
        candidate.hold = True
    else:
        candidate.die()
        link = next(link for link in rig.plane.routes["m"].links() if link.ref.host == "v2")
        async with asyncio.timeout(10):
            while link.connected.is_set():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
    assert await ask(rig.plane.lease("m", None, None), 1.0) == [2.0]
    pairs = await settled(rig)
    assert (pairs.total, pairs.worse) == (1, 1)
    assert sums(rig) == (1, 0)


async def test_what_has_no_room_is_dropped_before_it_is_sent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound on the copies' rows; the users notice nothing, and each copy is counted."""
    monkeypatch.setattr(mirror, "ROWS", 2)
    _, candidate = await shadowed(rig)
    candidate.hold = True
    for value in range(6):
        assert await ask(rig.plane.lease("m", None, None), float(value)) == [2.0 * value]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await candidate.until(lambda: sum(map(len, candidate.values)) == 2)
    candidate.release()
    pairs = await settled(rig)
    assert sums(rig) == (2, 4)
    assert pairs.total == 2
    dropped = {(s.version, s.role): s.dropped for s in rig.plane.stats()}
    assert dropped["v2", "shadow"] == 4


async def test_a_copy_holds_its_table(rig: Rig) -> None:
    """The revision is drained only after the last copy is done."""
    baseline, candidate = await shadowed(rig)
    candidate.hold = True
    await ask(rig.plane.lease("m", None, None), 1.0)
    await candidate.until(lambda: len(candidate.calls) == 1)
    rig.commit(rig.table(2, "v1", rig.entry("v1", baseline)), push=True)
    rig.plane.tick(1)
    assert ("drained", 1, 2) not in rig.said
    candidate.release()
    await rig.until_said("drained", 1, 2)
    assert (await settled(rig)).both == 1


async def test_a_sample_is_copied_by_a_coin_of_its_own(rig: Rig) -> None:
    """At 50 % the second coin of a request decides."""
    _, candidate = await shadowed(rig, mirror=5_000)
    rig.coins(BASELINE, 4_999, BASELINE, 5_000)
    for value in (1.0, 2.0):
        await ask(rig.plane.lease("m", None, None), value)
    assert (await settled(rig)).total == 1
    assert candidate.values == [[1.0]]


@pytest.mark.parametrize(("coin", "answers"), [(CANDIDATE, "v2"), (BASELINE, "v1")])
async def test_a_pair_asks_both_at_once_and_the_assigned_one_answers(
    rig: Rig, coin: int, answers: str
) -> None:
    """The other's slowness delays nobody; both are compared when both are done."""
    baseline, candidate = await rig.divide(pair=True)
    rig.coins(coin)
    other = baseline if answers == "v2" else candidate
    other.hold = True
    lease = rig.plane.lease("m", None, None)
    assert await ask(lease, 1.0) == [2.0]
    assert (lease.version, lease.fallback) == (answers, None)
    await other.until(lambda: len(other.calls) == 1)
    assert other.calls[0].shadow
    other.release()
    pairs = await settled(rig)
    assert (pairs.total, pairs.both, pairs.agree) == (1, 1, 1)
    assert (rig.arm("baseline").requests, rig.arm("candidate").requests) == (
        (0, 1) if answers == "v2" else (1, 0)
    )


async def test_in_a_pair_a_failed_candidate_falls_back_and_is_worse(rig: Rig) -> None:
    """Its user is answered by the baseline, which also has its half of the pair."""
    baseline, candidate = await rig.divide(pair=True)
    candidate.factor = math.nan
    rig.coins(CANDIDATE)
    lease = rig.plane.lease("m", None, None)
    assert await ask(lease, 1.0) == [2.0]
    assert lease.fallback == "invalid"
    pairs = await settled(rig)
    assert (pairs.total, pairs.worse) == (1, 1)
    assert np.sum([len(values) for values in baseline.values]) == 2


async def test_a_window_waits_for_its_pairs(rig: Rig) -> None:
    """It is not reported while a copy of it runs, and then has both."""
    _, candidate = await rig.divide(pair=True)
    candidate.hold = True
    rig.coins(BASELINE)
    await ask(rig.plane.lease("m", None, None), 1.0)
    await candidate.until(lambda: len(candidate.calls) == 1)
    (window,) = rig.plane.windows._open.values()
    assert rig.plane.windows.due(window.end_ns + 1) == []
    candidate.release()
    await settled(rig)
    assert [w.pairs.both for w in rig.windows if w.pairs] == [1]


async def test_how_long_copies_took_is_counted_apart(rig: Rig) -> None:
    """A limit on latency holds in a shadow too; it is never compared with stable's."""
    _, candidate = await shadowed(rig)
    await ask(rig.plane.lease("m", None, None), 1.0)
    await candidate.until(lambda: len(candidate.calls) == 1)
    await settled(rig)
    took = [sum(window.pairs.latency.values()) for window in rig.windows if window.pairs]
    assert took == [1]
    assert rig.arm("candidate").latency == {}


@pytest.mark.parametrize("more", [{"mirror": 10_000}, {"pair": True}])
async def test_copies_and_pairs_leave_nothing_to_the_cycle_collector(
    rig: Rig, more: dict[str, Any]
) -> None:
    """It stops the loop, for everybody, when it has much to do."""
    _, candidate = await rig.divide(weight=0, **more)
    rig.coins(*[BASELINE] * 10)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await ask(rig.plane.lease("m", None, None), 1.0)
        await candidate.until(lambda: len(candidate.calls) >= 5)
        await settled(rig)
        # By type: asking some libraries' objects for their class has effects of its own.
        kinds = (Attempt, mirror.Pairing)
        left = [each for each in gc.get_objects() if issubclass(type(each), kinds)]
        assert left == []
    finally:
        gc.enable()
