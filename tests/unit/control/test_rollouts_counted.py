"""What workers counted reaches evidence exactly once, whoever dies and whatever is repeated."""

from __future__ import annotations

import pytest

from hotswap.core.windows import FIRST, UnitEvent, Window
from hotswap.ipc.messages import Counted
from tests.unit.control.fakes import World, settle
from tests.unit.control.traffic import Traffic, body, drive, ended, tick


async def shown(served: World) -> tuple[Traffic, str]:
    """A canary of m at its first weight."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    for _ in range(6):
        served.clock.advance(1)
        await tick(served)
    assert served.supervisor.exposed() == 1000
    return traffic, id


def counted(world: World, id: str) -> int:
    """Requests of both arms that its evidence has."""
    stages = world.service._rollouts._runs[id].rollout.evidence.stages
    return sum(stage.candidate.requests + stage.stable.requests for stage in stages)


def window(world: World, traffic: Traffic, requests: int, number: int = 6000) -> Window:
    """A window of the split in force."""
    split = world.supervisor.table().split
    assert split is not None
    return traffic.window(split, requests, number)


async def save(world: World) -> None:
    """Time for the next save."""
    world.clock.advance(3)
    await tick(world)


async def test_saved_is_said_only_after_the_save(served: World) -> None:
    """Until then the supervisor keeps it for another control process."""
    traffic, id = await shown(served)
    await save(served)
    served.store.failing = "the disk is full"
    served.supervisor.count(window(served, traffic, 1000))
    await settle()
    assert counted(served, id) == 1000
    for _ in range(3):
        await save(served)
    assert len(served.supervisor.unsaved) == 1
    served.store.failing = ""
    await save(served)
    await save(served)
    assert served.supervisor.unsaved == []


async def test_every_model_must_be_saved(served: World) -> None:
    """Rollouts that are saved at different times: what one of them has not saved is kept, and
    what all have saved goes although each counts on.
    """
    await served.register("n", "v1", "v2")
    await served.service.switch("n", "v1")
    traffic, _ = await shown(served)
    served.clock.advance(1)
    await served.service.start_rollout(body(model="n"))
    await drive(traffic, 12)
    assert served.supervisor.sequence > 10
    assert len(served.supervisor.unsaved) <= 8


@pytest.mark.parametrize("seconds", range(1, 8))
async def test_nothing_is_let_go_that_another_has_not_saved(served: World, seconds: int) -> None:
    """Two rollouts are saved in turns; control dies at any moment: every request is counted."""
    await served.register("n", "v1", "v2")
    await served.service.switch("n", "v1")
    traffic, one = await shown(served)
    two = (await served.service.start_rollout(body(model="n"))).id
    await drive(traffic, 6 + seconds)
    await served.restart()
    await settle()
    assert len(traffic.sent) == 2
    for id in (one, two):
        assert counted(served, id) == traffic.sent[f"{id}.1"]


@pytest.mark.parametrize("saves", [False, True], ids=["unsaved", "saved"])
async def test_what_is_sent_again_counts_once(served: World, saves: bool) -> None:
    """Control dies after the report, before or after its save; the next one gets it again."""
    traffic, id = await shown(served)
    reports = [window(served, traffic, 1000, 6000 + each) for each in range(3)]
    for each in reports:
        served.supervisor.count(each)
    await settle()
    kept = list(served.supervisor.unsaved)
    if saves:
        await save(served)
        served.supervisor.unsaved = kept  # the word that it is saved was lost
    await served.restart()
    await settle()
    assert counted(served, id) == 3000
    served.supervisor.count(window(served, traffic, 500, 6010))
    await settle()
    assert counted(served, id) == 3500


async def test_reports_that_come_late_after_a_restart_count_once(served: World) -> None:
    """Control saves again before it has got all that is sent again."""
    traffic, id = await shown(served)
    for each in range(3):
        served.supervisor.count(window(served, traffic, 1000, 6000 + each))
    await settle()
    kept = list(served.supervisor.unsaved)
    await save(served)
    served.supervisor.unsaved = []
    await served.restart()
    for _ in range(2):
        await save(served)
    for batch in kept:
        served.life.tell(batch)
    await settle()
    assert counted(served, id) == 3000


async def test_a_stage_that_was_shown_and_not_saved(served: World) -> None:
    """Control dies right after the table shows the candidate: what is counted since is kept."""
    traffic = Traffic(served)
    id = (await served.service.start_rollout(body())).id
    while not served.supervisor.exposed():
        served.clock.advance(0.1)
        await tick(served)
    served.supervisor.count(window(served, traffic, 400))
    await served.restart()
    await settle()
    assert counted(served, id) == 400


async def test_another_supervisor_numbers_anew(served: World) -> None:
    """Its first reports have low numbers and count; what it counts is another stage."""
    traffic, id = await shown(served)
    for each in range(5):
        served.supervisor.count(window(served, traffic, 1000, 6000 + each))
    await settle()
    await save(served)
    await served.full_restart()
    for _ in range(4):
        served.clock.advance(1)
        await tick(served)
    split = served.supervisor.table().split
    assert split is not None
    assert (split.stage, split.weight) == (2, 1000)
    served.supervisor.count(window(served, traffic, 700))
    await settle()
    stages = served.service._rollouts._runs[id].rollout.evidence.stages
    assert [s.candidate.requests + s.stable.requests for s in stages] == [5000, 700]


async def test_windows_of_nobody_are_left_out(served: World) -> None:
    """Of an unknown test, or of a stage that was never opened: no error, no count."""
    traffic, id = await shown(served)
    good = window(served, traffic, 100)
    for test, stage in (("other.1", 1), (f"{id}.9", 1), (f"{id}.1", 99), ("x", 0)):
        served.supervisor.count(Window(test, stage, "w", 1, 1000, 1000, good.arms))
    served.life.tell(Counted([], 900))
    await settle()
    assert counted(served, id) == 0
    await save(served)
    assert served.supervisor.unsaved == []


async def test_a_unit_counts_once_for_ever(served: World) -> None:
    """Two workers, two reports, a restart of control, and a save that failed between."""
    _, id = await shown(served)

    def report(*units: int) -> None:
        split = served.supervisor.table().split
        assert split is not None
        events = [UnitEvent(unit, 2, FIRST) for unit in units]
        served.supervisor.count(
            Window(split.test, split.stage, "w", 6000, 1000, 1000, units=events)
        )

    report(1, 2)
    report(2, 3)
    await settle()
    assert counted(served, id) == 3
    put = served.store.put
    failed = False

    async def fail_once(kind: str, key: str, value: bytes, generation: int | None = None) -> int:
        nonlocal failed
        if kind == "rollout" and not failed:  # the chunk was written, the document is not
            failed = True
            served.store.failing = "the disk is full"
        return await put(kind, key, value, generation)

    served.store.put = fail_once  # type: ignore[method-assign]
    await save(served)
    served.store.failing = ""
    assert failed
    await save(served)
    await save(served)
    assert served.supervisor.unsaved == []
    await served.restart()
    report(1, 2, 3, 4)
    await settle()
    assert counted(served, id) == 4


async def test_units_of_what_is_over_are_not_kept(served: World) -> None:
    """The store holds them as long as they are of use."""
    traffic, id = await shown(served)
    split = served.supervisor.table().split
    assert split is not None
    events = [UnitEvent(unit, 2, FIRST) for unit in range(5)]
    served.supervisor.count(Window(split.test, split.stage, "w", 6000, 1000, 1000, units=events))
    await save(served)
    assert len(await served.shared.scan(f"units:{split.test}")) == 1
    await ended(traffic, id)
    assert await served.shared.scan(f"units:{split.test}") == []


async def test_a_write_whose_answer_was_lost_is_no_end(served: World) -> None:
    """It was carried out, and nobody knows its generation: the next save finds out."""
    traffic, id = await shown(served)
    put = served.store.put

    async def lose(kind: str, key: str, value: bytes, generation: int | None = None) -> int:
        result = await put(kind, key, value, generation)
        return result - 1 if kind == "rollout" else result

    served.store.put = lose  # type: ignore[method-assign]
    await save(served)
    served.store.put = put  # type: ignore[method-assign]
    assert (await ended(traffic, id)).phase == "Healthy"
