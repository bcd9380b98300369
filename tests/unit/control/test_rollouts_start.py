"""Starting rollouts: what is refused, what is repeated, what replaces and what waits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from hotswap.core.verification import verify
from hotswap.errors import BadInput, Conflict, HotswapError, NotFound, StoreError
from tests.unit.control.fakes import World, settle
from tests.unit.control.traffic import Traffic, body, drive, ended, tick, until_phase


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"model": "x"}, NotFound, "no model 'x'"),
        ({"version": "v9"}, NotFound, "no version 'v9'"),
        ({"version": "v1"}, Conflict, "is active already"),
        ({"strategy": "blue"}, BadInput, "strategy must be one of"),
        ({"extra": 1}, BadInput, "unknown key 'extra'"),
        ({"idempotency_key": 5}, BadInput, "idempotency_key"),
        ({"idempotency_key": "k" * 257}, BadInput, "idempotency_key"),
        ({"key_input": "user"}, BadInput, "it has x"),
        (
            {"guardrails": [{"metric": "lag", "query": "q", "max": 1}]},
            BadInput,
            "none is configured",
        ),
    ],
)
@pytest.mark.parametrize("dry", [False, True], ids=["start", "plan"])
async def test_what_cannot_be_is_refused(
    served: World, changes: dict[str, Any], kind: type[HotswapError], said: str, dry: bool
) -> None:
    """A start and its dry run refuse the same, with the reason, and begin nothing."""
    if dry and "idempotency_key" in changes:
        return  # a plan begins nothing that could be repeated
    act = served.service.plan_rollout if dry else served.service.start_rollout
    before = list(served.life.events)
    with pytest.raises(kind, match=said):
        await act(body(**changes))
    await settle()
    assert await served.service.rollouts() == []
    assert served.life.events == before


async def test_a_model_without_an_active_version_has_nothing_to_roll_out_from(
    world: World,
) -> None:
    """The sentence names the command that activates one."""
    await world.register("m", "v1", "v2")
    with pytest.raises(Conflict, match="'hotswap switch m v2' activates one"):
        await world.service.start_rollout(body())


async def test_a_version_that_was_rolled_back_needs_force(served: World) -> None:
    """Whoever rolls it out again says so; its promotion clears the mark."""
    traffic = Traffic(served)
    traffic.failing["v2"] = 0.3
    first = await served.service.start_rollout(body())
    view = await ended(traffic, first.id)
    assert (view.phase, view.reason) == ("RolledBack", "tripwire")
    assert (await served.stored()).rolled_back == ("v2",)
    with pytest.raises(Conflict, match="was rolled back from"):
        await served.service.start_rollout(body())
    traffic.failing.clear()
    again = await served.service.start_rollout(body(force=True))
    view = await ended(traffic, again.id)
    assert view.phase == "Healthy"
    assert (await served.stored()).rolled_back == ()


async def test_what_an_operator_aborted_is_not_marked(served: World) -> None:
    """An abort says nothing of the version: it may be rolled out again at once."""
    first = await served.service.start_rollout(body())
    await served.service.command_rollout(first.id, "abort")
    await ended(Traffic(served), first.id)
    await served.service.start_rollout(body())


async def test_a_dead_store_starts_nothing(served: World) -> None:
    """Not a host, not a table; when it is back the same start works."""
    hosts, before = len(served.supervisor.started), list(served.life.events)
    served.store.failing = "the disk is full"
    for _ in range(2):
        with pytest.raises(StoreError, match=r"was not started: .*the disk is full"):
            await served.service.start_rollout(body(idempotency_key="k"))
        await tick(served)
    assert await served.service.rollouts() == []
    assert len(served.supervisor.started) == hosts
    assert served.life.events == before
    served.store.failing = ""
    view = await served.service.start_rollout(body(idempotency_key="k"))
    assert view.phase == "Preparing"


async def test_nothing_happens_before_a_start_is_saved(served: World) -> None:
    """While its first write hangs no host is started, however often the others tick."""
    hosts = len(served.supervisor.started)
    gate = served.store.blocked = asyncio.Event()
    start = asyncio.ensure_future(served.service.start_rollout(body()))
    for _ in range(3):
        served.clock.advance(1)
        await tick(served)
    assert not start.done()
    assert len(served.supervisor.started) == hosts
    gate.set()
    served.store.blocked = None
    view = await start
    await tick(served)
    assert len(served.supervisor.started) > hosts
    assert (await served.service.rollout_journal(view.id))[0].kind == "started"


async def test_a_client_that_goes_away_does_not_undo_its_start(served: World) -> None:
    """What was asked for is done, and asked again it is the same rollout."""
    gate = served.store.blocked = asyncio.Event()
    start = asyncio.ensure_future(served.service.start_rollout(body(idempotency_key="k")))
    await settle()
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    gate.set()
    await settle()
    (view,) = await served.service.rollouts()
    again = await served.service.start_rollout(body(idempotency_key="k"))
    assert again.id == view.id


async def test_an_idempotency_key_starts_once(served: World) -> None:
    """The same body is answered as it was, before and after a restart of control and at its end."""
    first = await served.service.start_rollout(body(idempotency_key="k"))
    assert (await served.service.start_rollout(body(idempotency_key="k"))).id == first.id
    with pytest.raises(Conflict, match=f"used for another rollout, {first.id}"):
        await served.service.start_rollout(body(idempotency_key="k", version="v3"))
    await served.restart()
    assert (await served.service.start_rollout(body(idempotency_key="k"))).id == first.id
    await ended(Traffic(served), first.id)
    assert (await served.service.start_rollout(body(idempotency_key="k"))).id == first.id
    assert len(await served.service.rollouts()) == 1


async def test_beside_a_running_rollout_refusing_is_the_default(served: World) -> None:
    """Also for the same version; the sentence says what can be done."""
    first = await served.service.start_rollout(body())
    for version in ("v2", "v3"):
        with pytest.raises(Conflict, match=f"rollout {first.id} .* on_running 'replace' or"):
            await served.service.start_rollout(body(version=version))
    assert len(await served.service.rollouts()) == 1


async def test_two_starts_at_once_begin_one(served: World) -> None:
    """The second sees the first."""
    both = await asyncio.gather(
        served.service.start_rollout(body()),
        served.service.start_rollout(body(version="v3")),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in both) == ["Conflict", "RolloutView"]


@pytest.mark.parametrize("at", ["Preparing", "Progressing", "Baking"])
async def test_replacing_goes_back_first(served: World, at: str) -> None:
    """The running candidate is taken out at once, then the new one begins beside v1."""
    traffic = Traffic(served)
    first = await served.service.start_rollout(body())
    await until_phase(traffic, first.id, at)
    second = await served.service.start_rollout(body(version="v3", on_running="replace"))
    await settle()
    assert served.supervisor.exposed() == 0
    view = await ended(traffic, second.id)
    assert (view.phase, view.stable) == ("Healthy", "v1")
    old = await served.service.rollout(first.id)
    assert (old.phase, old.reason) == ("RolledBack", "superseded")
    assert served.supervisor.table().stable == "v3"
    for each in (first, second):
        assert verify(await served.service.rollout_journal(each.id)).mismatches == ()


async def test_a_replacing_start_that_is_not_saved_replaces_nothing(served: World) -> None:
    """The store fails: the running one goes on as it was."""
    traffic = Traffic(served)
    first = await served.service.start_rollout(body())
    await drive(traffic, 5)
    exposed = served.supervisor.exposed()
    assert exposed == 1000
    served.store.failing = "the disk is full"
    with pytest.raises(StoreError):
        await served.service.start_rollout(body(version="v3", on_running="replace"))
    served.store.failing = ""
    assert served.supervisor.exposed() == exposed
    assert (await ended(traffic, first.id)).phase == "Healthy"


async def test_control_that_dies_while_replacing_replaces_all_the_same(served: World) -> None:
    """The new one is saved, the old one not yet taken back: a restart does that."""
    traffic = Traffic(served)
    first = await served.service.start_rollout(body())
    await drive(traffic, 5)
    served.life.cut = len(served.life.events) + 1
    await served.run(served.service.start_rollout(body(version="v3", on_running="replace")))
    assert not served.life.alive
    await served.restart()
    (second,) = [each for each in await served.service.rollouts() if each.version == "v3"]
    assert (await ended(traffic, second.id)).phase == "Healthy"
    old = await served.service.rollout(first.id)
    assert (old.phase, old.reason) == ("RolledBack", "superseded")


async def test_those_who_queue_have_their_turn_in_order(served: World) -> None:
    """Each begins when the one before is over, beside the version that is stable then."""
    await served.register("m", "v4")
    traffic = Traffic(served)
    ids = [
        (await served.service.start_rollout(body(version=version, on_running="queue"))).id
        for version in ("v2", "v3", "v4")
    ]
    served.clock.advance(0.1)
    views = [await served.service.rollout(id) for id in ids]
    assert [view.reason for view in views] == ["hosts", "queued", "queued"]
    await served.restart()
    for id, stable in zip(ids, ("v1", "v2", "v3"), strict=True):
        view = await ended(traffic, id)
        assert (view.phase, view.stable) == ("Healthy", stable)
        assert verify(await served.service.rollout_journal(id)).mismatches == ()


async def test_who_queues_for_what_became_stable_meanwhile_fails(served: World) -> None:
    """There is nothing left to roll out; the journal says so."""
    traffic = Traffic(served)
    first = await served.service.start_rollout(body())
    second = await served.service.start_rollout(body(on_running="queue"))
    await ended(traffic, first.id)
    view = await ended(traffic, second.id)
    assert (view.phase, view.reason) == ("Failed", "superseded")
    journal = await served.service.rollout_journal(second.id)
    assert journal[-1].phase == "Failed"
    assert verify(journal).mismatches == ()


async def test_a_queued_rollout_can_be_aborted(served: World) -> None:
    """It never begins, and what runs does not notice."""
    traffic = Traffic(served)
    first = await served.service.start_rollout(body())
    second = await served.service.start_rollout(body(version="v3", on_running="queue"))
    await drive(traffic, 5)
    await served.service.command_rollout(second.id, "abort")
    assert served.supervisor.exposed() == 1000
    assert (await ended(traffic, first.id)).phase == "Healthy"
    assert (await served.service.rollout(second.id)).phase == "RolledBack"
    assert not any(spec.version == "v3" for spec in served.supervisor.started)


async def test_a_new_rollout_ends_the_watch_over_the_last(served: World) -> None:
    """Which is then over, promoted, and says why in its journal."""
    traffic = Traffic(served)
    first = await served.service.start_rollout(body(watch_seconds=3600))
    await until_phase(traffic, first.id, "Healthy")
    assert not (await served.service.rollout(first.id)).final
    second = await served.service.start_rollout(body(version="v3"))
    view = await served.service.rollout(first.id)
    assert view.final
    assert (view.phase, view.reason) == ("Healthy", "promoted")
    journal = await served.service.rollout_journal(first.id)
    assert journal[-1].message == view.message == "something else begins"
    assert verify(journal).mismatches == ()
    assert (await ended(traffic, second.id)).stable == "v2"


async def test_what_it_is_compared_by_is_frozen_at_the_start(served: World) -> None:
    """Failures of stable that come later do not move the mean that evidence is weighed by."""
    traffic = Traffic(served)
    first = await served.service.start_rollout(body())
    run = served.service._rollouts._runs[first.id]
    frozen = (run.rollout.evidence.error_mean, run.rollout.budget_ms, run.rollout.reserve_ms)
    traffic.failing = {"v1": 0.02, "v2": 0.02}
    await drive(traffic, 10)
    await served.restart()
    run = served.service._rollouts._runs[first.id]
    assert run.rollout.evidence.stages[0].stable.errors > 0
    assert frozen == (
        run.rollout.evidence.error_mean, run.rollout.budget_ms, run.rollout.reserve_ms,
    )  # fmt: skip
