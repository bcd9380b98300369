"""Control is killed after every write, publish and lowering of whole rollouts: the end is the same.

Each rollout is driven to its end once, and its events are counted. Then it is driven again for
each of them: control is killed right after it, the next one restores, and time goes on.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hotswap.control.rollout_store import Document
from hotswap.core.verification import verify
from tests.scenario.conftest import NewWorld
from tests.unit.control.fakes import World
from tests.unit.control.traffic import Traffic, drive

_STEP = 4.0

ROLLOUTS: dict[str, dict[str, Any]] = {
    "canary": {
        "strategy": "canary",
        "config": {"initial_percentage": 10, "step_percentage": 40, "max_percentage": 50,
                   "evaluation_period_seconds": 8},
    },
    "canary that fails": {"strategy": "canary", "config": {"initial_percentage": 10}},
    "canary that fails in its bake": {"strategy": "immediate"},
    "shadow": {"strategy": "shadow", "config": {"min_requests": 20000}},
    "champion and challenger": {
        "strategy": "champion_challenger",
        "config": {"challenger_percentage": 20, "min_pairs": 20000},
    },
}  # fmt: skip
#: The phase, the reason, the stable version at the end, the flips.
ENDS = {
    "canary": ("Healthy", "promoted", "v2", ["v1", "v2"]),
    "canary that fails": ("RolledBack", "tripwire", "v1", ["v1"]),
    "canary that fails in its bake": ("RolledBack", "bake", "v1", ["v1", "v2", "v1"]),
    "shadow": ("Completed", "ended", "v1", ["v1"]),
    "champion and challenger": ("Healthy", "promoted", "v2", ["v1", "v2"]),
}


async def _started(new_world: NewWorld, name: str) -> tuple[Traffic, str]:
    world = await new_world()
    await world.register("m", "v1", "v2")
    await world.service.switch("m", "v1")
    traffic = Traffic(world)
    body = {"model": "m", "version": "v2", "bake_seconds": 12, "watch_seconds": 8}
    view = await world.service.start_rollout({**body, **ROLLOUTS[name]})
    if "fails" in name:
        traffic.failing["v2"] = 0.3
    _watch_what_is_shown(world, view.id)
    return traffic, view.id


def _watch_what_is_shown(world: World, id: str) -> None:
    """No table shows more than what is saved at that moment says."""
    commit = world.supervisor._commit

    def checked(before: Any, table: Any) -> None:
        if table.split is not None:
            value = world.shared._documents["rollout", id][0]
            assert value is not None
            status = msgspec.msgpack.decode(value, type=Document).rollout.status
            if table.stable == "v2":
                assert status.state in ("promoting", "baking")
            else:
                exposure = status.exposure
                assert exposure is not None
                assert (table.split.weight, table.split.mirror) <= (
                    exposure.weight,
                    exposure.mirror,
                )
        commit(before, table)

    world.supervisor._commit = checked  # type: ignore[method-assign]


async def _end(traffic: Traffic, id: str) -> tuple[str, str, str | None, list[str]]:
    """Driven until it is over and nothing is left of it, and what must hold then."""
    world = traffic.world
    await drive(traffic, 600, step=_STEP, until=lambda: world.service._rollouts._runs[id].closed)
    world.life.cut = None
    await drive(traffic, 3 * _STEP, step=_STEP)
    view = await world.service.rollout(id)
    journal = await world.service.rollout_journal(id)
    assert [entry.number for entry in journal] == list(range(1, len(journal) + 1))
    assert verify(journal).mismatches == ()
    table = world.supervisor.table()
    assert table.split is None
    assert table.stable == (await world.stored()).active
    assert world.supervisor.stable_only == set()
    assert not any(state.spec.twin for state in world.supervisor.hosts.values())
    flips = [stable for _, stable in world.supervisor.flips if stable is not None]
    return view.phase, view.reason, table.stable, flips


def _stages(world: World) -> list[tuple[int, int, int]]:
    """(stage, weight, mirror) in the order in which they came into force."""
    found: list[tuple[int, int, int]] = []
    for _, _, stage, weight, mirror, _ in world.supervisor.shown:
        if not found or found[-1] != (stage, weight, mirror):
            found.append((stage, weight, mirror))
    return found


@pytest.mark.parametrize("name", ROLLOUTS)
async def test_the_end_is_the_same_wherever_control_is_killed(
    new_world: NewWorld, name: str
) -> None:
    """One flip, the same stages, a journal without gaps, each request counted once, and no time
    lost but what was not saved.
    """
    traffic, id = await _started(new_world, name)
    whole = traffic.world
    before = len(whole.life.events)
    assert await _end(traffic, id) == ENDS[name]
    events = whole.life.events[before:]
    stages, seconds = _stages(whole), (await whole.service.rollout(id)).elapsed_seconds
    whole.life.end()
    assert len(events) > 8
    for at in range(1, len(events) + 1):
        traffic, id = await _started(new_world, name)
        world = traffic.world
        life = world.life
        life.cut = len(life.events) + at
        assert await _end(traffic, id) == ENDS[name], events[:at]
        if at < len(events) - 3:
            assert not life.alive, f"it did not get to {events[:at]}"
        assert _stages(world) == stages, events[:at]
        after = (await world.service.rollout(id)).elapsed_seconds
        assert seconds - 2 * _STEP <= after <= seconds + 3 * _STEP, events[:at]
        stages_of = world.service._rollouts._runs[id].rollout.evidence.stages
        # Every window was counted once, in whichever life: a window has the rate's requests.
        for stage in stages_of:
            total = stage.candidate.requests + stage.stable.requests
            assert total % int(traffic.rate * _STEP) == 0, events[:at]
        world.life.end()


@pytest.mark.parametrize("name", ["canary", "canary that fails in its bake"])
async def test_control_may_be_killed_again_and_again(new_world: NewWorld, name: str) -> None:
    """Each life ends after a few events, and it still comes to its end."""
    for lives in (3, 5, 8):
        traffic, id = await _started(new_world, name)
        world = traffic.world
        for _ in range(200):
            if world.service._rollouts._runs[id].closed:
                break
            world.life.cut = len(world.life.events) + lives
            await drive(traffic, _STEP, step=_STEP)
        assert await _end(traffic, id) == ENDS[name]
        world.life.end()


@pytest.mark.parametrize("name", ROLLOUTS)
async def test_the_end_is_the_same_wherever_the_node_dies(new_world: NewWorld, name: str) -> None:
    """The supervisor too is another one: hosts and tables are restored, evidence goes on."""
    at = 0
    while True:
        at += 2
        traffic, id = await _started(new_world, name)
        world = traffic.world

        async def restart(world: World = world, id: str = id) -> None:
            await world.full_restart()
            _watch_what_is_shown(world, id)

        traffic.restart = restart
        life = world.life
        life.cut = len(life.events) + at
        assert await _end(traffic, id) == ENDS[name], at
        killed = world.life is not life
        world.life.end()
        if not killed:  # it has fewer events than that
            break
    assert at > 8
