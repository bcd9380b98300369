"""What rollouts do to hosts, tables and the store, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from hotswap.control.exposing import needed
from hotswap.control.rollout_store import Document
from hotswap.core.rollout import Exposure
from hotswap.core.spec import VersionSettings
from hotswap.core.verification import verify
from hotswap.errors import MetricsUnavailable
from tests.unit.control.fakes import OTHER, World, settle
from tests.unit.control.test_rollout_queries import FakeSource, sourced
from tests.unit.control.traffic import Traffic, body, drive, ended, tick, until_phase


async def saved(world: World, id: str) -> Document:
    """What a restart would read."""
    found = await world.shared.get("rollout", id)
    assert found is not None
    return msgspec.msgpack.decode(found[0], type=Document)


async def test_nothing_is_shown_before_it_is_saved(served: World) -> None:
    """Whenever a table shows a stage, the store has said before that it should."""
    id = (await served.service.start_rollout(body())).id
    checked = []
    publish = served.supervisor._commit

    def commit(before: Any, table: Any) -> None:
        if table.split is not None:
            value = served.shared._documents["rollout", id][0]
            assert value is not None
            status = msgspec.msgpack.decode(value, type=Document).rollout.status
            if status.state == "promoting":  # the flip begins the bake: its intent is saved too
                model = served.shared._documents["model", "m"][0]
                assert model is not None
                assert b"intent" in model
                assert table.split.stage == status.stage + 1
            else:
                assert status.exposure is not None
                assert status.exposure.weight >= table.split.weight
                assert status.exposure.stage == table.split.stage
            named = set(table.hosts())
            ready = {n for n, s in served.supervisor.hosts.items() if s.state == "ready"}
            assert named <= ready
            checked.append(table.split.stage)
        publish(before, table)

    served.supervisor._commit = commit  # type: ignore[method-assign]
    await ended(Traffic(served), id)
    assert sorted(set(checked)) == [1, 2, 3, 4]
    assert [stage for _, _, stage, _, _, _ in served.supervisor.shown] == [1, 2, 3, 4]
    assert served.supervisor.flips[-1] == ("m", "v2")


async def test_weight_waits_for_warm_hosts_and_twins(served: World) -> None:
    """As long as the candidate loads, and then its twin, nothing is shown."""
    served.supervisor.held.add(("m", "v2"))
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 20)
    assert (await served.service.rollout(id)).phase == "Preparing"
    served.supervisor.held.add(("m", "v1"))
    served.supervisor.finish("m", "v2")
    await drive(traffic, 10)
    view = await served.service.rollout(id)
    assert view.phase == "Progressing"
    assert "0 of 1 twin hosts of v1 are warm" in view.message
    assert served.supervisor.exposed() == 0
    served.supervisor.finish("m", "v1")
    await drive(traffic, 3)
    assert served.supervisor.exposed() == 1000


async def test_twins_live_as_long_as_they_are_compared_with(served: World) -> None:
    """They are hosts of v1 that no other request reaches, and go when the rollout is over."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 5)
    twins = [s.spec for s in served.supervisor.hosts.values() if s.spec.twin]
    assert [(each.version, each.instance) for each in twins] == [("v1", 0)]
    table = served.supervisor.table()
    assert table.split is not None
    assert [ref.host for ref in table.split.twin] == [twins[0].host]
    assert all(ref.host != twins[0].host for entry in table.versions for ref in entry.hosts)
    await ended(traffic, id)
    assert not any(s.spec.twin for s in served.supervisor.hosts.values())


@pytest.mark.parametrize("held", [False, True], ids=["warm", "loading"])
async def test_twins_that_were_never_shown_go_too(served: World, held: bool) -> None:
    """An abort comes while they are being loaded, or just after."""
    served.store.failing = ""
    id = (await served.service.start_rollout(body())).id
    traffic = Traffic(served)
    if held:
        for _ in range(30):
            await drive(traffic, 1)
            served.supervisor.held.add(("m", "v1"))
            if any(s.spec.twin for s in served.supervisor.hosts.values()):
                break
    else:
        await drive(traffic, 3)
    await served.service.command_rollout(id, "abort")
    await ended(traffic, id)
    served.supervisor.finish("m", "v1")
    await settle()
    assert not any(s.spec.twin for s in served.supervisor.hosts.values())


def test_how_many_hosts_a_weight_takes() -> None:
    """As many of stable's instances as the weight, rounded up; a pair takes all."""
    from hotswap.core.rollout import Rollout, Status
    from hotswap.core.strategy import parse

    rollout = Rollout("r", parse(body()), (), Status(), "v1", instances=4)
    assert needed(rollout, None) == (1, 0)
    for weight, hosts in ((1, 1), (2500, 1), (2501, 2), (5000, 2), (9000, 4), (10000, 4)):
        assert needed(rollout, Exposure(1, weight)) == (hosts, 0)
        assert needed(rollout, Exposure(1, weight, twin=True)) == (hosts, hosts)
    assert needed(rollout, Exposure(1, 100, pair=True))[0] == 4


@pytest.fixture
async def four(world: World) -> World:
    """v1 serves with four instances; v2 has one by itself."""
    world.jobs.settings = VersionSettings(instances=4)
    await world.register("m", "v1")
    world.jobs.settings = VersionSettings()
    await world.register("m", "v2")
    await world.service.switch("m", "v1")
    return world


def alive(world: World, version: str, *, twin: bool = False) -> int:
    """Hosts of a version of m that run."""
    return sum(
        (s.spec.version, s.spec.twin) == (version, twin) for s in world.supervisor.hosts.values()
    )


async def test_capacity_grows_with_the_weight(four: World) -> None:
    """One host answers for a quarter, two for a half, and all four are warm before it is stable."""
    traffic = Traffic(four)
    seen: dict[int, tuple[int, int]] = {}
    commit = four.supervisor._commit

    def look(before: Any, table: Any) -> None:
        if table.split is not None:
            entry = table.version("v2")
            seen.setdefault(table.split.weight, (len(entry.hosts), len(table.split.twin)))
        commit(before, table)

    four.supervisor._commit = look  # type: ignore[method-assign]
    id = (await four.service.start_rollout(body(steps=[25, 50], config={}))).id
    await drive(traffic, 6)
    assert (alive(four, "v2"), alive(four, "v1", twin=True)) == (1, 1)
    await ended(traffic, id, most=3000)
    assert seen == {2500: (1, 1), 5000: (2, 2), 10000: (4, 0)}
    assert alive(four, "v2") == 4


async def test_lost_capacity_pauses_and_comes_back(four: World) -> None:
    """The clock of the step stands still meanwhile; the new host is routed to by itself."""
    traffic = Traffic(four)
    id = (await four.service.start_rollout(body(steps=[50], config={}))).id
    await drive(traffic, 10)
    assert alive(four, "v2") == 2
    before = await four.service.rollout(id)
    four.supervisor.held.add(("m", "v2"))
    four.supervisor.lose("m", "v2", most=1)
    await drive(traffic, 30)
    view = await four.service.rollout(id)
    assert (view.phase, view.reason) == ("Paused", "capacity")
    assert view.step == before.step
    assert view.step_seconds <= before.step_seconds + 1
    four.supervisor.finish("m", "v2")
    await drive(traffic, 3)
    view = await four.service.rollout(id)
    assert view.phase == "Progressing"
    entry = four.supervisor.table().version("v2")
    assert entry is not None
    running = {n for n, s in four.supervisor.hosts.items() if s.spec.version == "v2"}
    assert {ref.host for ref in entry.hosts} == running
    assert verify(await four.service.rollout_journal(id)).mismatches == ()


async def test_a_lost_twin_is_replaced(served: World) -> None:
    """The table then names the new one, under the same stage and weight."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 6)
    before = served.supervisor.table().split
    assert before is not None
    served.supervisor.lose("m", "v1", twin=True)
    await drive(traffic, 4)
    after = served.supervisor.table().split
    assert after is not None
    assert {ref.host for ref in after.twin} <= set(served.supervisor.hosts)
    assert after.twin != before.twin
    assert msgspec.structs.replace(after, twin=before.twin) == before
    assert (await ended(traffic, id)).phase == "Healthy"


async def test_a_candidate_that_dies_again_and_again_must_go(served: World) -> None:
    """Three deaths in the attempt; what died before it, and a restart of control, count for nothing."""
    await served.service.load("m", "v2")
    for _ in range(5):
        served.supervisor.revive("m", "v2")
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 6)
    await served.restart()
    await drive(traffic, 2)
    assert (await served.service.rollout(id)).phase == "Progressing"
    for _ in range(3):
        served.supervisor.revive("m", "v2")
    view = await ended(traffic, id)
    assert (view.phase, view.reason) == ("RolledBack", "tripwire")
    assert "died 3 times" in view.message


async def test_a_candidate_that_cannot_be_loaded_fails(served: World) -> None:
    """With the reason; nothing was ever shown of it."""
    served.supervisor.broken["m", "v2"] = ("bad magic", "LoadError")
    id = (await served.service.start_rollout(body())).id
    view = await ended(Traffic(served), id)
    assert (view.phase, view.reason) == ("Failed", "load")
    assert "bad magic" in view.message
    assert served.supervisor.shown == []


async def test_other_causes_of_a_table_keep_the_split(served: World) -> None:
    """A registration, a load, a restarted host: neither dropped nor raised, and not closed again."""
    traffic = Traffic(served)
    await served.service.start_rollout(body())
    await drive(traffic, 6)
    split = served.supervisor.table().split
    assert split is not None

    async def check() -> None:
        await settle()
        assert served.supervisor.table().split == split

    revision = served.supervisor.table().revision
    await served.register("m", "v4")
    await check()
    await served.service.load("m", "v3")
    await check()
    await served.service.adopt(served.found("m/v5"), first=False)
    await check()
    served.supervisor.revive("m", "v1")
    await served.service.tick()
    await check()
    assert served.supervisor.table().revision > revision
    await served.restart()
    await check()


@pytest.mark.parametrize("how", ["abort", "supersede", "trip", "guardrail"])
async def test_lowering_waits_for_no_store(served: World, how: str) -> None:
    """A write that hangs holds back what is written, not the bit that takes the candidate out."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 6)
    gate = served.store.blocked = asyncio.Event()
    waiting: list[asyncio.Future[Any]] = []
    if how == "abort":
        waiting.append(asyncio.ensure_future(served.service.command_rollout(id, "abort")))
    elif how == "supersede":
        switch = served.service.switch("m", "v3", force=True)
        waiting.append(asyncio.ensure_future(switch))
    elif how == "trip":
        served.supervisor.trip("five in a row")
    else:
        traffic.failing["v2"] = 1.0
        traffic.flow(5)
        await settle()
        served.clock.advance(1)
        waiting.append(asyncio.ensure_future(served.service._rollouts.tick()))
    await settle()
    assert served.supervisor.exposed() == 0
    # And whatever is published meanwhile does not undo it.
    gate.set()
    served.store.blocked = None
    await asyncio.gather(*waiting)
    for _ in range(5):
        served.clock.advance(1)
        await tick(served)
        assert served.supervisor.exposed() == 0
    assert served.supervisor.table().split is None
    assert (await served.service.rollout(id)).phase == "RolledBack"
    assert verify(await served.service.rollout_journal(id)).mismatches == ()


async def test_one_that_hangs_keeps_none_from_being_lowered(served: World) -> None:
    """The store hangs while m is raised; then n's candidate fails, and m's too."""
    await served.register("n", "v1", "v2")
    await served.service.switch("n", "v1")
    traffic = Traffic(served)
    ids = [(await served.service.start_rollout(body(model=name))).id for name in ("m", "n")]
    await drive(traffic, 6)
    assert served.supervisor.exposed("n") == 1000
    gate = served.store.blocked = asyncio.Event()
    await served.service.rollout(ids[0])
    skip = asyncio.ensure_future(served.service.command_rollout(ids[0], "skip"))
    await settle()
    traffic.failing["v2"] = 1.0
    traffic.flow(5)
    await settle()
    served.clock.advance(1)
    await asyncio.wait_for(served.service._rollouts.tick(), 5)
    assert (served.supervisor.exposed("m"), served.supervisor.exposed("n")) == (0, 0)
    gate.set()
    served.store.blocked = None
    await skip
    for _ in range(5):
        served.clock.advance(1)
        await tick(served)
        assert (served.supervisor.exposed("m"), served.supervisor.exposed("n")) == (0, 0)
    for id in ids:
        assert (await served.service.rollout(id)).phase == "RolledBack"


async def test_the_breaker_is_not_forgotten(served: World) -> None:
    """Control was dead when it tripped: the next one hears of it, and shows nothing meanwhile."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 6)
    served.life.end()
    served.supervisor.trip("five in a row")
    await served.restart()
    assert served.supervisor.exposed() == 0
    await served.register("m", "v4")
    assert served.supervisor.exposed() == 0
    view = await ended(traffic, id)
    assert (view.phase, view.reason) == ("RolledBack", "tripwire")
    assert "five in a row" in view.message
    assert all(weight <= 1000 for _, _, _, weight, _, _ in served.supervisor.shown)


async def test_a_store_outage_holds_the_weights(served: World) -> None:
    """Paused with the reason store; what was decided meanwhile is written down when it can be."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 6)
    shown = list(served.supervisor.shown)
    served.store.failing = "the disk is full"
    await drive(traffic, 60)
    view = await served.service.rollout(id)
    assert (view.phase, view.reason) == ("Paused", "store")
    assert "the disk is full" in view.message
    assert served.supervisor.shown == shown
    assert served.supervisor.exposed() == 1000
    served.store.failing = ""
    assert (await ended(traffic, id)).phase == "Healthy"
    journal = await served.service.rollout_journal(id)
    assert [entry.number for entry in journal] == list(range(1, len(journal) + 1))
    assert any(entry.reason == "store" for entry in journal)
    assert verify(journal).mismatches == ()


@pytest.mark.parametrize("dies", [False, True], ids=["control lives", "control dies"])
@pytest.mark.parametrize("how", ["abort", "guardrail", "rollback"])
async def test_what_is_lowered_without_a_store_stays_out(
    served: World, how: str, dies: bool
) -> None:
    """Also where control dies before it could save that: the store still says that it is shown."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 8)
    served.store.failing = "the disk is full"
    await drive(traffic, 3)
    if how == "abort":
        await served.service.command_rollout(id, "abort")
    elif how == "rollback":
        await served.service.rollback("m")
    else:
        traffic.failing["v2"] = 1.0
    await drive(traffic, 5)
    assert served.supervisor.exposed() == 0
    assert served.supervisor.table().split is None
    shown = list(served.supervisor.shown)
    if dies:
        await served.restart()
    served.store.failing = ""
    view = await ended(traffic, id)
    assert view.phase == "RolledBack"
    assert served.supervisor.shown == shown
    journal = await served.service.rollout_journal(id)
    assert [entry.number for entry in journal] == list(range(1, len(journal) + 1))
    assert verify(journal).mismatches == ()


async def test_a_promotion_waits_for_the_store(served: World) -> None:
    """It fails at its flip: v1 goes on, few operations are tried, and then it is promoted."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body(strategy="immediate", config={}))).id
    served.supervisor.held.add(("m", "v2"))
    await drive(traffic, 2)
    served.store.failing = "the disk is full"
    served.supervisor.finish("m", "v2")
    await drive(traffic, 60)
    assert served.supervisor.table().stable == "v1"
    assert len(await served.service.operations()) < 10
    served.store.failing = ""
    assert (await ended(traffic, id)).phase == "Healthy"
    assert served.supervisor.table().stable == "v2"


async def promoting(served: World) -> tuple[Traffic, str]:
    """A rollout that is about to flip: v2 loads and is about to be stable."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body(strategy="immediate", config={}))).id
    return traffic, id


async def test_an_abort_ends_a_promotion_that_is_preparing(served: World) -> None:
    """The flip waits for its turn when the abort comes: it is never carried out."""
    traffic, id = await promoting(served)
    run = served.service._rollouts._runs[id]
    await drive(traffic, 20, until=lambda: run.status.state == "running")
    async with served.service._routes.lock("m"):
        for _ in range(3):
            served.clock.advance(1)
            await asyncio.wait_for(served.service._rollouts.tick(), 5)
            await settle()
        assert run.status.state == "promoting"
        assert (await served.service.operations())[0].state == "preparing"
        await served.service.command_rollout(id, "abort")
        await settle()
    view = await ended(traffic, id)
    assert (view.phase, view.reason) == ("RolledBack", "aborted")
    assert ("m", "v2") not in served.supervisor.flips


async def test_a_flip_that_was_meant_is_not_finished_after_an_abort(served: World) -> None:
    """Its intent was saved, then the abort, then control died: the next one flips nothing."""
    traffic, id = await promoting(served)

    async def hang(_: object) -> Any:
        await asyncio.Event().wait()

    run = served.service._rollouts._runs[id]
    await drive(traffic, 20, until=lambda: run.status.state == "running")
    served.node.publish = hang  # type: ignore[method-assign, assignment]
    for _ in range(3):
        served.clock.advance(1)
        await asyncio.wait_for(served.service._rollouts.tick(), 5)
        await settle()
    assert (await served.stored()).intent is not None
    await served.service.command_rollout(id, "abort")
    await served.restart()
    view = await ended(traffic, id)
    assert (view.phase, view.reason) == ("RolledBack", "aborted")
    assert ("m", "v2") not in served.supervisor.flips
    assert (await served.stored()).intent is None


async def test_a_metrics_outage_holds_the_weights(served: World) -> None:
    """And a level that is passed takes the candidate back; a source that is back lets it go on."""
    source = FakeSource(lag=0.1)
    await sourced(served, source)
    rails = [{"metric": "lag", "query": "lag", "max": 1.0}, {"metric": "error_rate"}]
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body(guardrails=rails))).id
    await drive(traffic, 6)
    assert served.supervisor.exposed() == 1000
    source.answers["lag"] = MetricsUnavailable("prometheus is gone")
    await drive(traffic, 40)
    view = await served.service.rollout(id)
    assert (view.phase, view.reason) == ("Paused", "metrics_outage")
    assert served.supervisor.exposed() == 1000
    source.answers["lag"] = 0.2
    await drive(traffic, 15)
    assert (await served.service.rollout(id)).phase == "Progressing"
    source.answers["lag"] = 7.0
    view = await ended(traffic, id)
    assert (view.phase, view.reason) == ("RolledBack", "tripwire")
    assert "lag is 7 > 1" in view.message
    assert verify(await served.service.rollout_journal(id)).mismatches == ()


async def test_what_happens_is_told(served: World) -> None:
    """Each move is an event, and what needs a person an alert; ids grow over a restart."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    await drive(traffic, 6)
    served.supervisor.trip("five in a row")
    await ended(traffic, id)
    events = served.service.recent_events()
    assert [event.id for event in events] == sorted({event.id for event in events})
    phases = [e.data["phase"] for e in events if e.kind == "rollout"]
    assert (phases[0], phases[-1]) == ("Preparing", "RolledBack")
    (alert,) = [event for event in events if event.kind == "alert"]
    assert (alert.model, alert.data["rollout"], alert.data["reason"]) == ("m", id, "tripwire")
    listener = served.service.events(after=events[-2].id)
    assert (await anext(listener)).id == events[-1].id
    await listener.aclose()  # type: ignore[attr-defined]
    assert served.service.rollout_counters() == {("m", "canary", "RolledBack", "tripwire"): 1}
    served.clock.advance(1)
    await served.restart()
    await served.service.start_rollout(body(version="v3"))
    assert served.service.recent_events()[0].id > events[-1].id


async def test_the_wall_clock_may_step(served: World) -> None:
    """A day back, a year on: the same steps after the same seconds."""

    async def seconds(*steps: float) -> list[tuple[str, str, int]]:
        traffic = Traffic(served, seed=5)
        changes: dict[str, Any] = {"force": True}
        id = (await served.service.start_rollout(body(**changes))).id
        for step in (*steps, *([0.0] * (3 - len(steps)))):
            served.clock._wall += step
            await drive(traffic, 9)
        view = await ended(traffic, id)
        await served.service.switch("m", "v1", force=True)
        await drive(traffic, 2)
        journal = await served.service.rollout_journal(id)
        return [(e.phase, e.reason, round(e.record["after"]["state_elapsed"])) for e in journal] + [
            (view.phase, view.reason, round(view.elapsed_seconds))
        ]

    await seconds()  # from here on v2 is warm before it begins
    calm = await seconds()
    assert await seconds(-86400.0, 3e7, -5e6) == calm


async def test_two_models_are_rolled_out_side_by_side(served: World) -> None:
    """One is taken back, the other promoted: neither notices the other."""
    await served.register("n", "v1", "v3")
    await served.service.switch("n", "v1")
    traffic = Traffic(served)
    traffic.failing["v2"] = 0.4
    one = await served.service.start_rollout(body())
    two = await served.service.start_rollout(body(model="n", version="v3"))
    assert (await ended(traffic, one.id)).phase == "RolledBack"
    assert (await ended(traffic, two.id)).phase == "Healthy"
    assert served.supervisor.table("m").stable == "v1"
    assert served.supervisor.table("n").stable == "v3"
    assert served.supervisor.unsaved == []


async def test_a_broken_new_stable_is_taken_back_from_its_bake(served: World) -> None:
    """One flip, to what is still warm; and its version is marked."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body(bake_seconds=600))).id
    await until_phase(traffic, id, "Baking")
    started = len(served.supervisor.started)
    flips = len(served.supervisor.flips)
    traffic.failing["v2"] = 0.3
    view = await ended(traffic, id)
    assert (view.phase, view.reason) == ("RolledBack", "bake")
    assert served.supervisor.flips[flips:] == [("m", "v1")]
    assert len(served.supervisor.started) == started
    assert (await served.stored()).rolled_back == ("v2",)


@pytest.mark.parametrize("strategy", ["immediate", "canary"])
async def test_a_warm_host_of_another_signature_is_not_ready(served: World, strategy: str) -> None:
    """It was loaded for itself, by force; a rollout starts one that fits, or fails with the reason."""
    served.supervisor.signatures["m", "v2"] = OTHER
    await served.service.switch("m", "v2", force=True)
    await served.service.switch("m", "v1", force=True)
    assert served.supervisor.table().signature != OTHER
    served.supervisor.broken["m", "v2"] = ("it does not fit", "SignatureMismatch")
    asked = body(strategy=strategy, force=True)
    if strategy == "immediate":
        del asked["config"]
    before = len(served.supervisor.shown)
    view = await ended(Traffic(served), (await served.service.start_rollout(asked)).id)
    assert (view.phase, view.reason) == ("Failed", "load")
    assert "it does not fit" in view.message
    assert served.supervisor.shown[before:] == []


async def test_the_cache_is_cleared_beside_what_was_just_removed(served: World) -> None:
    """A host on its way out is no version to unload."""
    await served.service.load("m", "v3")
    removing = asyncio.ensure_future(served.service.remove_version("m", "v3"))
    assert ("m", "v1") not in await served.service.clear_cache()
    await removing
    assert await served.service.clear_cache() == []
