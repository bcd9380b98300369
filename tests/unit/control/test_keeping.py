"""What control keeps as it should be: rollbacks, warmth, memory, lazy loads, removals, sources."""

from __future__ import annotations

import asyncio

import pytest

from hotswap.errors import Conflict, LoadError, NotFound, OutOfMemory, StoreError
from hotswap.ipc.messages import Published
from tests.unit.control.fakes import MIB, SIGNATURE, World, settle, states


async def _active(world: World, *versions: str) -> None:
    for version in versions:
        await world.service.switch("m", version)


# --- rollback


async def test_a_rollback_goes_to_the_last_good_version(served: World) -> None:
    """Each rollback goes further back, and never to what was rolled back from."""
    await _active(served, "v2", "v3")
    assert (await served.service.rollback("m")).to == "v2"
    assert (await served.service.rollback("m")).to == "v1"
    with pytest.raises(Conflict, match="no version to roll back to"):
        await served.service.rollback("m")
    assert served.supervisor.table().stable == "v1"


async def test_a_rollback_needs_a_model_that_was_switched(world: World) -> None:
    """Nothing to go back to is a conflict; no such model is not found."""
    await world.register("m", "v1")
    with pytest.raises(Conflict):
        await world.service.rollback("m")
    with pytest.raises(NotFound):
        await world.service.rollback("q")


async def test_a_rollback_is_one_flip_while_the_old_version_is_warm(served: World) -> None:
    """Nothing is loaded for it."""
    await _active(served, "v2")
    started = len(served.supervisor.started)
    await served.service.rollback("m")
    assert len(served.supervisor.started) == started


# --- the store


async def test_a_switch_is_refused_while_the_store_cannot_be_written(served: World) -> None:
    """Forward is saved first: nothing is published, v1 goes on."""
    tables = dict(served.supervisor.tables)
    served.store.failing = "the disk is full"
    with pytest.raises(StoreError, match="the disk is full"):
        await served.service.switch("m", "v2")
    assert served.supervisor.table().stable == "v1"
    assert tables[1].stable == served.supervisor.tables[1].stable
    assert (await served.service.model("m")).active == "v1"
    served.store.failing = ""
    assert (await served.service.switch("m", "v2")).to == "v2"


async def test_a_rollback_happens_without_the_store_and_is_saved_later(served: World) -> None:
    """Back is what an operator needs in trouble; the store learns of it when it can."""
    await _active(served, "v2")
    served.store.failing = "the disk is full"
    assert (await served.service.rollback("m")).to == "v1"
    assert served.supervisor.table().stable == "v1"
    assert (await served.stored()).active == "v2"
    await served.service.tick()
    assert (await served.stored()).active == "v2"
    served.store.failing = ""
    await served.service.tick()
    stored = await served.stored()
    assert (stored.active, stored.rolled_back, stored.intent) == ("v1", ("v2",), None)


async def test_a_store_that_cannot_be_opened_is_told(world: World) -> None:
    """Commands say why; an empty list of models would be a lie."""
    service = world.begin()
    world.store.failing = "no such host"
    with pytest.raises(StoreError, match="no such host"):
        await service.open()
    for command in (service.models(), service.switch("m", "v1"), service.model("m")):
        with pytest.raises(StoreError, match="no such host"):
            await command
    assert service.ready() == (False, "no such host")
    world.store.failing = ""
    await service.open()
    assert await service.models() == []


# --- warmth and memory


async def test_the_former_version_stays_warm_for_a_while_then_goes(served: World) -> None:
    """Until the keep-warm time is over a rollback is instant; then its memory comes back."""
    await _active(served, "v2")
    served.clock.advance(599)
    await served.service.tick()
    assert served.supervisor.running() == {"m/v1": ["ready"], "m/v2": ["ready"]}
    served.clock.advance(2)
    await served.service.tick()
    await settle()
    assert served.supervisor.running() == {"m/v2": ["ready"]}
    assert (await served.service.rollback("m")).to == "v1"


async def test_a_host_goes_only_when_no_request_holds_it(served: World) -> None:
    """Unloaded is not stopped: the workers' last leases come first."""
    await _active(served, "v2")
    served.supervisor.draining = True
    await served.service.unload("m", "v1")
    await settle()
    assert "m/v1" in served.supervisor.running()
    entry = served.supervisor.table().version("v1")
    assert entry is not None
    assert entry.hosts == ()
    served.supervisor.drain()
    await settle()
    assert served.supervisor.running() == {"m/v2": ["ready"]}


async def test_the_active_version_is_not_unloaded(served: World) -> None:
    """409 with what to do first."""
    with pytest.raises(Conflict, match="switch to another one first"):
        await served.service.unload("m", "v1")


async def test_a_version_that_was_superseded_can_be_unloaded(served: World) -> None:
    """Hosts that came up for nothing and are in no table are stopped too."""
    served.supervisor.held |= {("m", "v2"), ("m", "v3")}
    older = asyncio.create_task(served.service.switch("m", "v2"))
    await settle()
    newer = asyncio.create_task(served.service.switch("m", "v3"))
    await asyncio.gather(older, return_exceptions=True)
    served.supervisor.finish("m", "v3")
    await newer
    served.supervisor.finish("m", "v2")
    await settle()
    assert "m/v2" in served.supervisor.running()
    await served.service.unload("m", "v2")
    await settle()
    assert "m/v2" not in served.supervisor.running()


async def test_what_is_idle_is_evicted_for_what_is_needed(served: World) -> None:
    """Least recently used first; never what is active or kept warm for a rollback."""
    await served.budget(31 * MIB)
    await served.service.load("m", "v2")
    await served.service.load("m", "v3")
    served.clock.advance(100)
    await served.register("n", "v1")
    await served.service.switch("n", "v1")
    await settle()
    assert served.supervisor.running() == {"m/v1": ["ready"], "m/v3": ["ready"], "n/v1": ["ready"]}


async def test_without_room_a_load_is_refused_with_the_bytes(served: World) -> None:
    """What is in use is not evicted: 507 says what is needed and what there is."""
    await served.budget(11 * MIB)
    with pytest.raises(OutOfMemory, match=r"needs about 2 MiB; 10 of 11 MiB are held"):
        await served.service.switch("m", "v2")
    assert served.supervisor.running() == {"m/v1": ["ready"]}


async def test_what_has_grown_past_the_budget_goes(served: World) -> None:
    """Measured memory counts: a tick unloads what has no weight until the rest fits."""
    await served.budget(100 * MIB)
    await served.service.load("m", "v2")
    served.clock.advance(100)
    served.memory = lambda pid: 80 * MIB
    await served.service.tick()
    await settle()
    assert served.supervisor.running() == {"m/v1": ["ready"]}
    (version,) = [v for v in (await served.service.model("m")).versions if v.instances]
    assert version.memory_bytes == 80 * MIB


async def test_what_has_grown_is_kept_while_it_is_in_use(served: World) -> None:
    """Over the budget too, nothing that was used in the last minute is unloaded."""
    await served.budget(100 * MIB)
    await served.service.load("m", "v2")
    served.memory = lambda pid: 80 * MIB
    served.clock.advance(59)
    await served.service.tick()
    await settle()
    assert served.supervisor.running() == {"m/v1": ["ready"], "m/v2": ["ready"]}
    served.clock.advance(2)
    await served.service.tick()
    await settle()
    assert served.supervisor.running() == {"m/v1": ["ready"]}


async def test_clearing_the_cache_unloads_what_has_no_weight(served: World) -> None:
    """Resident versions go; the active one and the warm rollback target stay."""
    await _active(served, "v2")
    await served.service.load("m", "v3")
    assert await served.service.clear_cache() == [("m", "v3")]
    await settle()
    assert sorted(served.supervisor.running()) == ["m/v1", "m/v2"]


# --- lazy loads


async def test_clients_wishes_are_loaded_one_by_one(served: World) -> None:
    """A version that a client pinned is loaded once; what fails is not tried again at once."""
    loader = asyncio.create_task(served.service.run_lazy_loads())
    served.supervisor.broken["m", "v3"] = ("bad magic", "LoadError")
    served.supervisor.held.add(("m", "v2"))
    for _ in range(3):
        served.supervisor.want("m", "v2")
        served.supervisor.want("m", "v3")
    await settle()
    assert [s.version for s in served.supervisor.started] == ["v1", "v2"]
    served.supervisor.finish("m", "v2")
    await settle()
    entry = served.supervisor.table().version("v2")
    assert entry is not None
    assert (entry.state, len(entry.hosts)) == ("READY", 1)
    assert [s.version for s in served.supervisor.started] == ["v1", "v2", "v3"]
    served.supervisor.want("m", "v3")
    await settle()
    assert len(served.supervisor.started) == 3
    served.clock.advance(60)
    del served.supervisor.broken["m", "v3"]
    served.supervisor.want("m", "v3")
    await settle()
    assert sorted(served.supervisor.running()) == ["m/v1", "m/v2", "m/v3"]
    served.supervisor.want("gone", "v1")
    await settle()
    assert not loader.done()
    loader.cancel()


async def test_an_active_version_that_is_gone_is_tried_again(served: World) -> None:
    """Now and then, until it can be loaded."""
    served.supervisor.broken["m", "v1"] = ("the library is gone", "LoadError")
    served.supervisor.lose("m", "v1")
    await served.service.tick()
    started = len(served.supervisor.started)
    await served.service.tick()
    assert len(served.supervisor.started) == started
    del served.supervisor.broken["m", "v1"]
    served.clock.advance(60)
    await served.service.tick()
    await settle()
    assert served.supervisor.running() == {"m/v1": ["ready"]}
    entry = served.supervisor.table().version("v1")
    assert entry is not None
    assert [ref.host for ref in entry.hosts] == list(served.supervisor.hosts)


async def test_load_and_unload_are_operations(served: World) -> None:
    """Warm without weight, and cold again."""
    assert (await served.service.load("m", "v2")).state == "done"
    assert (await served.service.model("m")).versions[1].role == "resident"
    assert served.supervisor.table().stable == "v1"
    assert (await served.service.unload("m", "v2")).state == "done"
    await settle()
    assert served.supervisor.running() == {"m/v1": ["ready"]}
    served.supervisor.broken["m", "v2"] = ("bad magic", "LoadError")
    with pytest.raises(LoadError):
        await served.service.load("m", "v2")
    assert states(await served.service.operations())[:3] == [
        ("load", "v2", "failed"), ("unload", "v2", "done"), ("load", "v2", "done"),
    ]  # fmt: skip
    operation = (await served.service.operations())[0]
    assert await served.service.operation(operation.id) == operation
    with pytest.raises(NotFound, match="no operation 'x'"):
        await served.service.operation("x")


# --- removal


async def test_what_serves_or_is_the_rollback_target_is_not_removed(served: World) -> None:
    """409 for both; the others go, with their hosts, and their ids are not given again."""
    await _active(served, "v2")
    with pytest.raises(Conflict, match="is active"):
        await served.service.remove_version("m", "v2")
    with pytest.raises(Conflict, match="rollback leads to"):
        await served.service.remove_version("m", "v1")
    await served.service.load("m", "v3")
    await served.service.remove_version("m", "v3")
    await settle()
    assert sorted(served.supervisor.running()) == ["m/v1", "m/v2"]
    assert [e.version for e in served.supervisor.table().versions] == ["v1", "v2"]
    with pytest.raises(Conflict, match="never reused"):
        await served.register("m", "v3")
    with pytest.raises(NotFound):
        await served.service.remove_version("m", "v3")


async def test_a_model_that_was_never_active_can_be_removed(world: World) -> None:
    """Its table is emptied, its hosts go, and another model does not get its word."""
    await world.register("m", "v1")
    await world.service.load("m", "v1")
    await world.service.remove_model("m")
    await settle()
    assert world.supervisor.table().versions == ()
    assert world.supervisor.hosts == {}
    with pytest.raises(NotFound):
        await world.service.model("m")
    await world.register("n", "v1")
    assert (await world.service.switch("n", "v1")).to == "v1"
    await world.register("m", "v5")
    assert (await world.service.switch("m", "v5")).to == "v5"
    assert world.supervisor.table("n").index != world.supervisor.table("m").index
    with pytest.raises(Conflict, match="active"):
        await world.service.remove_model("m")


# --- registration and sources


async def test_registered_is_not_activated(served: World) -> None:
    """A new version changes no traffic; without an id it is the next one."""
    view = await served.service.register("m", "somewhere", changelog="better", who="ann")
    assert (view.version, view.state, view.changelog, view.created_by) == (
        "v4", "REGISTERED", "better", "ann",
    )  # fmt: skip
    assert served.supervisor.table().stable == "v1"
    assert served.supervisor.table().version("v4") is not None


async def test_ids_are_bound_to_their_content(served: World) -> None:
    """The same content again is the same version; other content under its id is 409."""
    first = (await served.service.model("m")).versions[1]
    again = await served.service.register("m", "m-v2", version="v2")
    assert again.digest == first.digest
    with pytest.raises(Conflict, match="versions are immutable"):
        await served.service.register("m", "other", version="v2")


async def test_the_first_start_activates_the_highest(world: World) -> None:
    """In natural order; versions that come later are only registered."""
    await world.service.adopt(world.found("m/v9", "m/v10", "n/v1"), first=True)
    assert world.supervisor.table("m").stable == "v10"
    assert world.supervisor.table("n").stable == "v1"
    assert world.service.ready() == (True, "")
    await asyncio.sleep(0)  # the supervisor hears of it in the next step
    assert world.supervisor.all_warm == 1
    await world.service.adopt(world.found("m/v9", "m/v10", "m/v11", "n/v1"), first=False)
    assert world.supervisor.table("m").stable == "v10"
    assert [e.version for e in world.supervisor.table("m").versions] == ["v9", "v10", "v11"]
    await world.restart()
    await world.service.adopt(world.found("m/v9", "m/v10", "m/v11", "n/v1"), first=True)
    assert world.supervisor.table("m").stable == "v10"


async def test_a_folder_that_cannot_be_registered_is_told_and_tried_when_it_changes(
    world: World,
) -> None:
    """The others are registered; the reason is shown as a warning of the model."""
    torn = world.folder / "torn"
    torn.mkdir()
    found = [*world.found("m/v1"), ("m", "v2", torn)]
    await world.service.adopt(found, first=True)
    view = await world.service.model("m")
    assert view.warnings == ("v2: the archive is torn",)
    assert [v.version for v in view.versions] == ["v1"]


async def test_a_first_version_that_cannot_be_loaded_leaves_the_node_unready(world: World) -> None:
    """It says which model and why; a switch that works makes it ready."""
    world.supervisor.broken["m", "v2"] = ("bad magic", "LoadError")
    await world.service.adopt(world.found("m/v1", "m/v2"), first=True)
    ready, reason = world.service.ready()
    assert not ready
    assert "not warm yet: m" in reason
    assert "bad magic" in reason
    await world.service.switch("m", "v1")
    assert world.service.ready() == (True, "")


async def test_draining_is_not_ready(served: World) -> None:
    """Once shutdown has begun control says so."""
    assert served.service.ready() == (True, "")
    served.service.drain()
    assert served.service.ready() == (False, "the server is stopping")


async def test_a_model_that_was_only_loaded_says_what_it_takes(world: World) -> None:
    """Before the first activation a warm version can be pinned by its own signature."""
    await world.register("m", "v1")
    await world.service.load("m", "v1")
    table = world.supervisor.table()
    assert (table.stable, table.signature) == (None, SIGNATURE)


# --- the node


async def test_a_new_control_lets_requests_of_the_old_table_finish(served: World) -> None:
    """Hosts that only an old table names go when the supervisor says that it is drained."""
    await _active(served, "v2")
    served.supervisor.draining = True
    await served.service.unload("m", "v1")
    await served.restart()
    await settle()
    assert "m/v1" in served.supervisor.running()
    served.supervisor.drain()
    await settle()
    assert served.supervisor.running() == {"m/v2": ["ready"]}


async def test_a_new_control_stops_loads_that_nobody_waits_for(served: World) -> None:
    """What the control before it was loading is stopped at once."""
    served.supervisor.held.add(("m", "v2"))
    switch = asyncio.create_task(served.service.switch("m", "v2"))
    await settle()
    assert served.supervisor.running()["m/v2"] == ["starting"]
    served.supervisor.draining = True
    await served.restart()
    await settle()
    assert served.supervisor.running() == {"m/v1": ["ready"]}
    switch.cancel()


async def test_a_flip_that_is_late_is_done_all_the_same(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that answers too late fails the command, and no later one."""
    monkeypatch.setattr("hotswap.control.node._PUBLISH_SECONDS", 0.01)
    await served.service.load("m", "v2")
    served.supervisor.silent = True
    with pytest.raises(StoreError, match="in time"):
        await served.service.switch("m", "v2")
    with pytest.raises(StoreError, match="not carried out yet"):
        await served.service.switch("m", "v3")
    served.supervisor.silent = False
    table = served.supervisor.table()
    served.life.tell(Published(table.index, table.revision, 0.0, 0.0, 0, 0))
    assert (await served.service.switch("m", "v3")).to == "v3"
    assert served.supervisor.table().revision == table.revision + 1


async def test_slots_and_names_are_not_given_twice(world: World) -> None:
    """Hosts of several models that start together have a slot each."""
    for model in ("a", "b", "c"):
        await world.register(model, "v1", "v2")
    await asyncio.gather(*(world.service.load(m, v) for m in "abc" for v in ("v1", "v2")))
    specs = world.supervisor.started
    assert len({spec.slot for spec in specs}) == len({spec.host for spec in specs}) == 6
    assert {spec.slot for spec in specs} == set(range(6))


async def test_a_cold_rollback_leads_back_over_a_forced_switch(served: World) -> None:
    """What a version served is kept with the model, so a forced switch does not bar the way back."""
    await served.service.switch("m", "v2", force=True)
    model = served.service._catalogue.model("m")
    assert set(model.signatures) >= {"v1", "v2"}


async def test_a_version_that_could_not_be_registered_says_why(world: World) -> None:
    """A switch to it is 409 with the reason of the registration, not 'no such version'."""
    await world.service.adopt(world.found("m/v1"), first=True)
    world.service._registry._problems["m", "v2"] = "model.onnx is torn"
    with pytest.raises(Conflict, match=r"could not be registered: model.onnx is torn"):
        await world.service.switch("m", "v2")


async def test_a_removed_model_stays_removed_although_its_folder_is_there(world: World) -> None:
    """A source's versions of it are not registered again, and no id is ever used anew."""
    await world.service.adopt(world.found("m/v1"), first=True)
    await world.service.remove_model("m", force=True)
    await world.service.adopt(world.found("m/v1"), first=False)
    with pytest.raises(NotFound):
        await world.service.model("m")
    back = await world.service.register("m", "other")
    assert back.version == "v2"
    assert (await world.service.model("m")).active is None


async def test_what_was_only_registered_is_not_activated_by_a_restart(world: World) -> None:
    """The first start activates what it finds; a model that came later waits for a switch."""
    await world.service.adopt(world.found("m/v1"), first=True)
    await world.service.adopt(world.found("m/v1", "n/v1"), first=False)
    await world.service.adopt(world.found("m/v1", "n/v1"), first=True)
    assert (await world.service.model("m")).active == "v1"
    assert (await world.service.model("n")).active is None
