"""Control is killed after every store write and every publish; the end is always the same.

A scenario is run once to count what it does that outlives it. Then it is run again for each
prefix of that, control is killed there, a new one restores, and the command is given again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from hotswap.core.lifecycle import rollback_target
from hotswap.errors import Conflict, NotFound
from tests.scenario.conftest import NewWorld
from tests.unit.control.fakes import World, settle

Command = Callable[[World], Awaitable[object]]


async def _empty(world: World) -> None:
    """A node without models."""


async def _v1_serves(world: World) -> None:
    await world.register("m", "v1", "v2", "v3")
    await world.service.switch("m", "v1")


async def _v2_serves(world: World) -> None:
    await _v1_serves(world)
    await world.service.switch("m", "v2")


async def _v3_is_loaded(world: World) -> None:
    await _v2_serves(world)
    await world.service.load("m", "v3")


async def _first_start(world: World) -> None:
    await world.service.adopt(world.found("m/v1", "m/v2", "n/v1"), first=True)


async def _switch(world: World) -> None:
    await world.service.switch("m", "v2", idempotency_key="once")


async def _rollback(world: World) -> None:
    await world.service.rollback("m", idempotency_key="once")


async def _register(world: World) -> None:
    await world.service.register("m", "m-v4", version="v4")


async def _remove(world: World) -> None:
    await world.service.remove_version("m", "v3")


async def _unload(world: World) -> None:
    await world.service.unload("m", "v3")


SCENARIOS: dict[str, tuple[Command, Command]] = {
    "first start": (_empty, _first_start),
    "switch": (_v1_serves, _switch),
    "rollback": (_v2_serves, _rollback),
    "register": (_v1_serves, _register),
    "remove": (_v3_is_loaded, _remove),
    "unload": (_v3_is_loaded, _unload),
}
SCENARIO = pytest.mark.parametrize(("prepare", "command"), SCENARIOS.values(), ids=SCENARIOS)


async def _end(world: World) -> dict[str, object]:
    """What clients and operators can see, without numbers that may differ."""
    models = {}
    for view in await world.service.models():
        table = world.supervisor.table(view.name)
        models[view.name] = (
            view.active,
            view.previous,
            table.stable,
            table.signature,
            [(e.version, bool(e.hosts)) for e in table.versions],
            [(v.version, v.state, v.role) for v in view.versions],
        )
    return {"models": models, "running": {k: len(v) for k, v in world.supervisor.running().items()}}


async def _check(world: World) -> None:
    """What holds after every restore, wherever control was killed."""
    await settle()
    for name, model in world.service._catalogue.models.items():
        stored = await world.stored(name)
        assert stored == msgspec.structs.replace(model, used=stored.used)
        assert stored.intent is None
        assert set(world.service._catalogue.versions[name]) <= set(model.used)
        table = next((t for t in world.supervisor.tables.values() if t.model == name), None)
        if model.active is not None:
            assert table is not None
            assert table.stable == model.active
            entry = table.version(model.active)
            assert entry is not None
            assert entry.hosts
            assert rollback_target(model, frozenset(world.service._catalogue.versions[name])) != (
                model.active
            )
    named = {
        ref.host
        for table in world.supervisor.tables.values()
        for entry in table.versions
        for ref in entry.hosts
    }
    assert named == set(world.supervisor.hosts)
    for view in await world.service.operations():
        assert view.state not in ("preparing", "flipping")


async def _again(world: World, command: Command) -> None:
    """The operator gives the command again: it is carried out, or it was already."""
    with contextlib.suppress(Conflict, NotFound):
        await command(world)


@SCENARIO
@pytest.mark.parametrize("whole_node", [False, True], ids=["control dies", "node dies"])
async def test_the_end_is_the_same_wherever_control_is_killed(
    new_world: NewWorld, prepare: Command, command: Command, whole_node: bool
) -> None:
    """Every prefix of the scenario's writes and publishes leads to the end of the whole."""
    whole = await new_world()
    await prepare(whole)
    before = len(whole.life.events)
    stable_before = {t.model: t.stable for t in whole.supervisor.tables.values()}
    await command(whole)
    await settle()
    await _check(whole)
    end = await _end(whole)
    events = whole.life.events[before:]
    assert events
    stable_after = {t.model: t.stable for t in whole.supervisor.tables.values()}
    for at in range(1, len(events) + 1):
        world = await new_world()
        await prepare(world)
        await settle()
        world.life.cut = len(world.life.events) + at
        await world.run(command(world))
        assert not world.life.alive, f"it did not get to {events[:at]}"
        await (world.full_restart() if whole_node else world.restart())
        await _check(world)
        for table in world.supervisor.tables.values():
            allowed = {stable_before.get(table.model), stable_after.get(table.model)}
            assert table.stable in allowed, events[:at]
        await _again(world, command)
        await settle()
        await _check(world)
        assert await _end(world) == end, events[:at]
        world.life.end()


@pytest.mark.parametrize("whole_node", [False, True], ids=["control dies", "node dies"])
async def test_restoring_may_be_cut_too(new_world: NewWorld, whole_node: bool) -> None:
    """Control is killed with an intent saved, and killed again at each step of rolling it forward."""
    first = await new_world()
    await _v1_serves(first)
    before = len(first.life.events)
    await _switch(first)
    events = first.life.events[before:]
    intent_at = 1 + next(at for at, what in enumerate(events) if what == "put model m")
    for cut in range(1, 12):
        world = await new_world()
        await _v1_serves(world)
        world.life.cut = len(world.life.events) + intent_at
        await world.run(_switch(world))
        assert (await world.stored()).intent is not None
        assert world.supervisor.table().stable == "v1"
        restart = world.full_restart if whole_node else world.restart
        await restart(cut)
        finished = world.life.alive
        await restart()
        await _check(world)
        assert world.supervisor.table().stable == "v2"
        done = [op for op in await world.service.operations() if op.version == "v2"]
        assert [op.state for op in done] == ["done"]
        world.life.end()
        if finished:
            return
    raise AssertionError("restoring never came to its end")


async def test_a_rollback_without_a_store_survives_controls_death(new_world: NewWorld) -> None:
    """Neither a restart of control nor one of the node brings back what was rolled back from."""
    for whole_node in (False, True):
        for dirty_switch in (False, True):
            world = await new_world()
            await _v1_serves(world)
            if dirty_switch:
                # The store dies between the intent of the switch and its end.
                put = world.store.put

                async def put_and_fail(
                    kind: str, key: str, value: bytes, generation: int | None = None,
                    world: World = world, put: Callable[..., Awaitable[int]] = put,
                ) -> int:  # fmt: skip
                    result = await put(kind, key, value, generation)
                    if kind == "model":
                        world.store.failing = "the disk is full"
                    return result

                world.store.put = put_and_fail  # type: ignore[method-assign]
                await world.service.switch("m", "v2")
                assert (await world.stored()).intent is not None
            else:
                await world.service.switch("m", "v2")
            world.store.failing = "the disk is full"
            await world.service.rollback("m")
            assert world.supervisor.table().stable == "v1"
            await (world.full_restart() if whole_node else world.restart())
            await _check(world)
            assert world.supervisor.table().stable == "v1"
            assert (await world.service.model("m")).active == "v1"
            if not dirty_switch:
                assert (await world.stored()).rolled_back == ("v2",)
            world.life.end()


async def test_an_intent_that_cannot_be_finished_leaves_the_old_version(world: World) -> None:
    """The version of an unfinished flip does not load any more: what served goes on."""
    await _v1_serves(world)
    await settle()
    world.life.cut = len(world.life.events) + 2  # the operation, the intent
    await world.run(_switch(world))
    assert (await world.stored()).intent is not None
    world.supervisor.broken["m", "v2"] = ("bad magic", "LoadError")
    await world.full_restart()
    await _check(world)
    assert (await world.stored()).intent is None
    assert world.supervisor.table().stable == "v1"
    (view,) = [op for op in await world.service.operations() if op.version == "v2"]
    assert view.state == "failed"
    assert world.service.ready() == (True, "")
