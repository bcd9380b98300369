"""Requests under a split: one arm each, an answer in any case, and an outcome that is counted once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from hotswap.errors import DeadlineExceeded, HostLost, ModelFailed, NotFound, Overloaded
from hotswap.ipc.frames import Failure
from hotswap.serving.split import SplitLease
from hotswap.stats.buckets import TIMEOUT
from tests.unit.serving.conftest import Rig, ask

CANDIDATE, BASELINE, TWIN = 0, 6_000, 9_999


async def request(rig: Rig, value: float = 1.0, seconds: float = 10.0) -> tuple[float, SplitLease]:
    """One request without a key; its answer and the released lease."""
    lease = rig.plane.lease("m", None, None)
    assert isinstance(lease, SplitLease)
    return (await ask(lease, value, seconds=seconds))[0], lease


def raises(kind: str = "model") -> Callable[[int], Failure]:
    return lambda number: Failure([number], kind, "ValueError: no", "")


async def test_the_coin_decides_who_answers_and_the_answer_names_it(rig: Rig) -> None:
    """Below the weight the candidate, else the baseline; each is counted with its answer's value."""
    _, candidate = await rig.divide()
    candidate.factor = 3.0
    rig.coins(CANDIDATE, BASELINE, BASELINE)
    answers = [await request(rig) for _ in range(3)]
    assert [(y, lease.version, lease.fallback) for y, lease in answers] == [
        (3.0, "v2", None), (2.0, "v1", None), (2.0, "v1", None),
    ]  # fmt: skip
    assert (rig.arm("candidate").requests, rig.arm("baseline").requests) == (1, 2)
    assert (
        sum(rig.arm("baseline").latency.values()) == sum(rig.arm("baseline").values.values()) == 2
    )
    assert rig.arm("candidate").values.keys() != rig.arm("baseline").values.keys()
    window = rig.windows[0]
    assert (window.test, window.stage, window.worker, window.weight) == ("t", 1, "w1", 5_000)


async def test_an_exception_of_the_candidate_is_answered_by_the_baseline(rig: Rig) -> None:
    """The user gets the baseline's answer, the candidate the failure."""
    _, candidate = await rig.divide()
    candidate.fail = raises()
    rig.coins(CANDIDATE)
    y, lease = await request(rig)
    assert (y, lease.version, lease.fallback) == (2.0, "v1", "error")
    arm = rig.arm("candidate")
    assert (arm.requests, arm.errors, arm.latency, arm.values) == (1, 1, {}, {})
    assert rig.windows[0].fallbacks == {"error": 1}
    assert rig.arm("baseline").requests == 0
    stats = {(s.version, s.role): s for s in rig.plane.stats()}
    assert stats["v2", "candidate"].fallbacks == 1
    assert stats["v2", "candidate"].errors == {"model": 1}
    assert stats["v1", "stable"].success == 1


async def test_a_slow_candidate_loses_its_request_at_the_budget(rig: Rig) -> None:
    """The baseline answers in time, the candidate is told to stop, and a timeout is counted."""
    _, candidate = await rig.divide(budget_ms=30.0)
    candidate.hold = True
    rig.coins(CANDIDATE)
    began = time.monotonic()
    y, lease = await request(rig)
    assert (y, lease.version, lease.fallback) == (2.0, "v1", "timeout")
    assert time.monotonic() - began >= 0.02
    await candidate.until(lambda: len(candidate.cancelled) == 1)
    arm = rig.arm("candidate")
    assert (arm.requests, arm.timeouts, arm.errors, arm.latency) == (1, 1, 0, {TIMEOUT: 1})


async def test_a_candidate_whose_host_dies_is_not_asked_again(rig: Rig) -> None:
    """The request falls back; it is never sent to the candidate's next process."""
    _, candidate = await rig.divide()
    candidate.poison = 1.0
    rig.coins(CANDIDATE)
    y, lease = await request(rig)
    assert (y, lease.fallback) == (2.0, "lost")
    candidate.poison = None
    await candidate.start()
    link = next(link for link in rig.plane.routes["m"].links() if link.ref.host == "v2")
    async with asyncio.timeout(10):
        await link.connected.wait()
    assert len(candidate.calls) == 1
    assert (rig.arm("candidate").requests, rig.arm("candidate").errors) == (1, 1)


async def test_a_full_queue_of_the_candidate_is_its_failure(rig: Rig) -> None:
    """Overload of the candidate reaches nobody."""
    rig.plane = rig.new_plane(queue_rows=1)
    _, candidate = await rig.divide()
    candidate.hold = True
    rig.coins(CANDIDATE)
    first = asyncio.create_task(request(rig))
    await candidate.until(lambda: len(candidate.calls) == 1)
    y, lease = await request(rig)
    assert (y, lease.fallback) == (2.0, "overload")
    candidate.release()
    assert (await first)[1].version == "v2"
    assert (rig.arm("candidate").requests, rig.arm("candidate").errors) == (2, 1)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
async def test_an_invalid_output_of_the_candidate_is_answered_by_the_baseline(
    rig: Rig, factor: float
) -> None:
    """NaN and infinity are no answers of a candidate."""
    _, candidate = await rig.divide()
    candidate.factor = factor
    rig.coins(CANDIDATE)
    y, lease = await request(rig)
    assert (y, lease.fallback) == (2.0, "invalid")
    arm = rig.arm("candidate")
    assert (arm.requests, arm.invalid, arm.latency, arm.values) == (1, 1, {}, {})


async def test_the_baselines_invalid_output_is_counted_and_given(rig: Rig) -> None:
    """The baseline is measured by the same checks, although its answer is not replaced."""
    baseline, _ = await rig.divide()
    baseline.factor = math.nan
    rig.coins(BASELINE)
    y, lease = await request(rig)
    assert math.isnan(y)
    assert (lease.version, lease.fallback) == ("v1", None)
    assert rig.arm("baseline").invalid == 1


async def test_the_baseline_has_the_same_budget_and_answers_late(rig: Rig) -> None:
    """What takes longer than the budget is a timeout of the baseline, and yet its answer."""
    baseline, _ = await rig.divide(budget_ms=20.0)
    baseline.hold = True
    rig.coins(BASELINE)
    task = asyncio.create_task(request(rig))
    await baseline.until(lambda: len(baseline.calls) == 1)
    await asyncio.sleep(0.03)
    baseline.release()
    assert (await task)[0] == 2.0
    assert (rig.arm("baseline").timeouts, rig.arm("baseline").latency) == (1, {TIMEOUT: 1})


async def test_a_lost_request_of_the_baseline_is_sent_again_and_counted_as_lost(rig: Rig) -> None:
    """Its first attempt was lost: an error, whatever the second gives."""
    baseline, _ = await rig.divide()
    baseline.hold = True
    rig.coins(BASELINE)
    task = asyncio.create_task(request(rig))
    await baseline.until(lambda: len(baseline.calls) == 1)
    baseline.die()
    baseline.hold = False
    await baseline.start()
    assert (await task)[0] == 2.0
    assert (rig.arm("baseline").requests, rig.arm("baseline").errors) == (1, 1)


async def test_a_candidate_without_a_process_is_charged_and_not_waited_for(rig: Rig) -> None:
    """The coin is tossed all the same, and the baseline answers at once."""
    _, candidate = await rig.divide()
    candidate.die()
    link = next(link for link in rig.plane.routes["m"].links() if link.ref.host == "v2")
    async with asyncio.timeout(10):
        while link.connected.is_set():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    rig.coins(CANDIDATE)
    y, lease = await request(rig)
    assert (y, lease.fallback) == (2.0, "unavailable")
    assert (rig.arm("candidate").requests, rig.arm("candidate").errors) == (1, 1)


async def test_if_the_baseline_fails_too_the_user_gets_its_error(rig: Rig) -> None:
    """Both failed: the error is the baseline's, and only the candidate's attempt is evidence."""
    baseline, candidate = await rig.divide()
    baseline.fail = candidate.fail = raises()
    rig.coins(CANDIDATE)
    lease = rig.plane.lease("m", None, None)
    with pytest.raises(ModelFailed):
        await ask(lease, 1.0)
    assert (lease.version, lease.fallback) == ("v1", "error")
    assert (rig.arm("candidate").errors, rig.arm("baseline").requests) == (1, 0)


async def test_the_twin_answers_for_the_baseline_and_is_counted_apart(rig: Rig) -> None:
    """Its share goes to its own host; the answer is the baseline's version."""
    baseline, _, twin = await rig.divide(twin=True)
    rig.coins(TWIN)
    y, lease = await request(rig)
    assert (y, lease.version, lease.fallback) == (2.0, "v1", None)
    assert (len(twin.calls), len(baseline.calls)) == (1, 0)
    assert rig.arm("twin").requests == 1
    assert len(rig.arm("twin").latency) == 1


async def test_a_twin_that_dies_costs_no_request(rig: Rig) -> None:
    """The baseline's own hosts answer; the loss is the twin's."""
    baseline, _, twin = await rig.divide(twin=True)
    twin.poison = 1.0
    rig.coins(TWIN)
    y, lease = await request(rig)
    assert (y, lease.version, lease.fallback) == (2.0, "v1", None)
    assert len(baseline.calls) == 1
    assert (rig.arm("twin").requests, rig.arm("twin").errors) == (1, 1)


async def test_a_missing_twin_is_no_failure_and_has_no_latency(rig: Rig) -> None:
    """The baseline's hosts answer for it, but under another load."""
    await rig.divide(twin_weight=2_500)
    rig.coins(TWIN)
    assert (await request(rig))[0] == 2.0
    arm = rig.arm("twin")
    assert (arm.requests, arm.errors, arm.latency) == (1, 0, {})
    assert len(arm.values) == 1


async def test_a_request_with_too_little_time_tosses_no_coin(rig: Rig) -> None:
    """It is excluded before the coin, and answered by the baseline."""
    _, candidate = await rig.divide(reserve_ms=5_000.0)
    rig.coins(CANDIDATE)
    y, lease = await request(rig, seconds=4.0)
    assert (y, lease.version, candidate.calls) == (2.0, "v1", [])
    assert rig.counted()[0].excluded == 1
    assert rig.arm("candidate").requests == rig.arm("baseline").requests == 0


async def test_stable_only_takes_the_candidate_out_without_a_table(rig: Rig) -> None:
    """With bit 63 set the baseline answers, no coin is tossed and nothing is counted."""
    _, candidate = await rig.divide()
    rig.coins(CANDIDATE)
    rig.epoch.stable_only(1)
    lease = rig.plane.lease("m", None, None)
    assert (await ask(lease, 1.0), lease.version) == ([2.0], "v1")
    assert candidate.calls == []
    assert rig.counted() == []


async def test_arms_by_name_toss_no_coin(rig: Rig) -> None:
    """stable, baseline, candidate and a pinned version: answered as named, counted nowhere."""
    await rig.divide()
    found = {}
    for arm in ("stable", "baseline", "candidate"):
        lease = rig.plane.lease("m", None, None, arm=arm)
        await ask(lease, 1.0)
        found[arm] = lease.version
    assert found == {"stable": "v1", "baseline": "v1", "candidate": "v2"}
    assert rig.counted() == []
    rig.commit(rig.table(2, "v1", *rig.plane.table("m").versions))
    with pytest.raises(NotFound, match="no test"):
        rig.plane.lease("m", None, None, arm="candidate")


async def test_in_the_bake_the_version_before_answers_for_the_new_one(rig: Rig) -> None:
    """With all the weight on the new stable version its failures still reach nobody."""
    _, candidate = await rig.divide(weight=10_000)
    table = rig.plane.table("m")
    baked = type(table)("m", 1, 2, "v2", table.signature, table.versions, table.split)
    rig.commit(baked)
    rig.coins(9_999)
    assert (await request(rig))[1].version == "v2"
    candidate.fail = raises()
    y, lease = await request(rig)
    assert (y, lease.version, lease.fallback) == (2.0, "v1", "error")
    assert (rig.arm("candidate").requests, rig.arm("candidate").errors) == (2, 1)


async def test_a_client_that_leaves_changes_no_outcome(rig: Rig) -> None:
    """The attempt goes on and is counted as what it becomes; its table is held until then."""
    baseline, candidate = await rig.divide()
    for coin, host in ((CANDIDATE, candidate), (BASELINE, baseline)):
        host.hold = True
        rig.coins(coin)
        task = asyncio.create_task(request(rig))
        await host.until(lambda host=host: bool(host.calls))  # type: ignore[misc]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.plane.routes["m"].leases == 1
        host.release()
        async with asyncio.timeout(10):
            while rig.plane.routes["m"].leases:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        assert host.cancelled == []
    assert rig.counted()[0].fallbacks == {}
    for name in ("candidate", "baseline"):
        arm = rig.arm(name)
        assert (arm.requests, arm.errors, arm.timeouts, len(arm.latency)) == (1, 0, 0, 1)


async def test_a_client_that_leaves_a_slow_candidate_leaves_a_timeout(rig: Rig) -> None:
    """Past the budget the attempt ends, and is a timeout."""
    baseline, candidate = await rig.divide(budget_ms=30.0)
    for coin, host in ((CANDIDATE, candidate), (BASELINE, baseline)):
        host.hold = True
        rig.coins(coin)
        task = asyncio.create_task(request(rig))
        await host.until(lambda host=host: bool(host.calls))  # type: ignore[misc]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await host.until(lambda host=host: len(host.cancelled) == 1)  # type: ignore[misc]
    assert rig.plane.routes["m"].leases == 0
    assert rig.arm("candidate").timeouts == rig.arm("baseline").timeouts == 1


async def test_an_overloaded_baseline_says_so_and_is_counted(rig: Rig) -> None:
    """Its user is refused as without a split; the attempt is an error."""
    rig.plane = rig.new_plane(queue_rows=1)
    baseline, _ = await rig.divide()
    baseline.hold = True
    rig.coins(BASELINE)
    first = asyncio.create_task(request(rig))
    await baseline.until(lambda: len(baseline.calls) == 1)
    with pytest.raises(Overloaded):
        await request(rig)
    baseline.release()
    await first
    assert (rig.arm("baseline").requests, rig.arm("baseline").errors) == (2, 1)


async def test_an_impure_version_is_sent_nowhere_again(rig: Rig) -> None:
    """What a lost twin may have done is not done twice."""
    _, _, twin = await rig.divide(twin=True, pure=False)
    twin.poison = 1.0
    rig.coins(TWIN)
    with pytest.raises(HostLost):
        await request(rig)
    assert rig.arm("twin").errors == 1


async def test_the_deadline_of_the_baseline_is_the_callers(rig: Rig) -> None:
    """A short deadline ends the baseline's attempt, as without a split."""
    baseline, _ = await rig.divide()
    baseline.hold = True
    rig.coins(BASELINE)
    with pytest.raises(DeadlineExceeded):
        await request(rig, seconds=0.06)
    assert rig.arm("baseline").timeouts == 1


async def test_a_key_keeps_its_arm_and_its_first_events_are_counted(rig: Rig) -> None:
    """One FIRST event a unit with its latency and value, one ERROR; no request counters."""
    _, candidate = await rig.divide()

    async def keyed(key: bytes) -> str:
        lease = rig.plane.lease("m", None, key)
        await ask(lease, 1.0)
        return lease.version

    keys = [b"user-%d" % n for n in range(40)]
    first = [await keyed(key) for key in keys]
    assert set(first) == {"v1", "v2"}
    assert [await keyed(key) for key in keys] == first
    candidate.fail = raises()
    await asyncio.gather(*(keyed(key) for key in keys))
    units = [event for window in rig.counted() for event in window.units]
    assert all(not window.arms for window in rig.windows)
    firsts = [event for event in units if event.kind == 0]
    assert len({event.unit for event in firsts}) == len(firsts) == 40
    assert all(event.latency >= 0 and event.value != -1 for event in firsts)
    assert sum(event.arm == 2 for event in firsts) == first.count("v2")
    errors = [event for event in units if event.kind == 1]
    assert sorted(e.unit for e in errors) == sorted(e.unit for e in firsts if e.arm == 2)


async def test_the_key_may_be_an_input(rig: Rig) -> None:
    """Without a header the configured input's first value is the key; with one the header's is."""
    await rig.divide(key_input="x")
    answers = [{(await request(rig, value))[1].version for _ in range(3)} for value in range(20)]
    assert all(len(versions) == 1 for versions in answers)
    assert set().union(*answers) == {"v1", "v2"}
    assert len([e for w in rig.counted() for e in w.units if e.kind == 0]) == 20


async def test_bad_input_tosses_no_coin(rig: Rig) -> None:
    """A lease that is released without a prediction was never assigned."""
    await rig.divide()
    rig.plane.lease("m", None, None).release()
    assert rig.counted() == []
    assert np.isclose(rig.plane.routes["m"].leases, 0)


async def test_during_the_bake_each_request_of_a_user_counts(rig: Rig) -> None:
    """No coin is left: the detector that watches needs every request, not each user's first."""
    await rig.divide(weight=10_000)
    for _ in range(3):
        await ask(rig.plane.lease("m", None, b"the same user"), 1.0)
    assert rig.arm("candidate").requests == 3
    assert [event for window in rig.windows for event in window.units] == []


async def test_a_baseline_without_a_process_is_charged_by_the_same_rule(rig: Rig) -> None:
    """Its request waits until it is back, and is answered; its first attempt has failed."""
    baseline, _ = await rig.divide()
    baseline.die()
    link = next(link for link in rig.plane.routes["m"].links() if link.ref.host == "v1")
    async with asyncio.timeout(10):
        while link.connected.is_set():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    rig.coins(BASELINE)
    waiting = asyncio.ensure_future(request(rig))
    await asyncio.sleep(0)
    await baseline.start()
    y, lease = await waiting
    assert (y, lease.version, lease.fallback) == (2.0, "v1", None)
    assert (rig.arm("baseline").requests, rig.arm("baseline").errors) == (1, 1)
    assert rig.windows[0].fallbacks == {}
