"""Commands that meet: registrations, switches, removals, loads and times that are over."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from hotswap.core.spec import VersionSettings
from hotswap.errors import HotswapError, LoadError
from hotswap.ipc.messages import HostChanged
from tests.unit.control.fakes import World, settle


class _Gate:
    """Holds the store's writes of one key until it is opened."""

    def __init__(self, world: World, kind: str, key: str) -> None:
        self._put = world.store.put
        self._what = (kind, key)
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        world.store.put = self.put  # type: ignore[method-assign]

    async def put(self, kind: str, key: str, value: bytes, generation: int | None = None) -> int:
        if (kind, key) == self._what and not self.opened.is_set():
            self.reached.set()
            await self.opened.wait()
        return await self._put(kind, key, value, generation)


async def test_a_registration_does_not_undo_a_switch_that_it_meets(served: World) -> None:
    """The version list and the active version are both kept, whoever writes last."""
    gate = _Gate(served, "version", "m/v4")
    register = asyncio.create_task(served.service.register("m", "m-v4", version="v4"))
    await gate.reached.wait()
    await served.service.switch("m", "v2")
    gate.opened.set()
    await register
    stored = await served.stored()
    assert (stored.active, stored.intent) == ("v2", None)
    assert set(stored.used) == {"v1", "v2", "v3", "v4"}
    assert (await served.service.model("m")).active == "v2"


async def test_a_switch_does_not_forget_a_registration_that_it_meets(served: World) -> None:
    """An id that was registered while a flip was saved counts as used for ever."""
    gate = _Gate(served, "model", "m")
    switch = asyncio.create_task(served.service.switch("m", "v2"))
    await gate.reached.wait()
    register = asyncio.create_task(served.service.register("m", "m-v4", version="v4"))
    await settle()
    gate.opened.set()
    await switch
    await register
    stored = await served.stored()
    assert stored.active == "v2"
    assert set(stored.used) == {"v1", "v2", "v3", "v4"}


async def test_what_is_saved_late_does_not_bar_a_flip(served: World) -> None:
    """A rollback that waited for the store is written while the next switch is: both are kept."""
    await served.service.switch("m", "v2")
    served.store.failing = "the disk is full"
    await served.service.rollback("m")
    served.store.failing = ""
    gate = _Gate(served, "model", "m")
    tick = asyncio.create_task(served.service.tick())
    await gate.reached.wait()
    switch = asyncio.create_task(served.service.switch("m", "v3"))
    await settle()
    gate.opened.set()
    await tick
    assert (await switch).to == "v3"
    stored = await served.stored()
    assert (stored.active, stored.rolled_back) == ("v3", ("v2",))


async def test_a_rollback_meets_the_end_of_the_warm_time(served: World) -> None:
    """A version whose time is over just then is warmed again: the rollback is done."""
    await served.service.switch("m", "v2")
    lock = served.service._routes.lock("m")
    await lock.acquire()
    unload = asyncio.create_task(served.service.unload("m", "v1"))
    await settle()
    rollback = asyncio.create_task(served.service.rollback("m"))
    await settle()
    lock.release()
    await unload
    assert (await rollback).to == "v1"
    assert served.supervisor.table().stable == "v1"


async def test_a_load_of_a_model_that_is_removed_leaves_no_host(served: World) -> None:
    """Its host is stopped with the model, and does not answer for a later one of that name."""
    served.supervisor.held.add(("m", "v2"))
    load = asyncio.create_task(served.service.load("m", "v2"))
    await settle()
    await served.service.remove_model("m", force=True)
    with pytest.raises(HotswapError):
        await load
    served.supervisor.finish("m", "v2")
    await settle()
    assert served.supervisor.running() == {}


async def test_a_load_of_a_version_that_is_removed_leaves_no_host(served: World) -> None:
    """What comes up after its version was removed is stopped."""
    served.supervisor.held.add(("m", "v3"))
    load = asyncio.create_task(served.service.load("m", "v3"))
    await settle()
    await served.service.remove_version("m", "v3")
    with pytest.raises(HotswapError):
        await load
    served.supervisor.finish("m", "v3")
    await settle()
    assert served.supervisor.running() == {"m/v1": ["ready"]}


async def test_a_restart_waits_for_every_instance(world: World) -> None:
    """One of two instances is up first: control keeps both."""
    world.jobs.settings = VersionSettings(instances=2)
    await world.register("m", "v1")
    await world.service.switch("m", "v1")
    assert world.supervisor.running() == {"m/v1": ["ready", "ready"]}
    both = set(world.supervisor.hosts)
    late = max(both)
    supervisor = world.supervisor
    state = supervisor.hosts[late]
    supervisor.held.add(("m", "v1"))
    supervisor.hosts[late] = msgspec.structs.replace(state, state="starting", report=None)
    begun = asyncio.create_task(world.restart())
    await settle()
    supervisor.finish("m", "v1")
    await begun
    await settle()
    assert set(supervisor.hosts) == both
    (entry,) = supervisor.table().versions
    assert {ref.host for ref in entry.hosts} == both


async def test_an_instance_that_does_not_come_up_again_is_replaced(world: World) -> None:
    """After a restart one of two is lost: one new host is started, the other one stays."""
    world.jobs.settings = VersionSettings(instances=2)
    await world.register("m", "v1")
    await world.service.switch("m", "v1")
    supervisor = world.supervisor
    stays, lost = sorted(supervisor.hosts)
    del supervisor.hosts[lost]
    await world.restart()
    await settle()
    assert stays in supervisor.hosts
    assert supervisor.running() == {"m/v1": ["ready", "ready"]}
    (entry,) = supervisor.table().versions
    assert {ref.host for ref in entry.hosts} == set(supervisor.hosts)


async def test_nothing_flips_to_a_version_whose_process_is_down(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weight without warm capacity, on a rollback too: it waits, and else says what is wrong."""
    monkeypatch.setattr("hotswap.control.switching._UP_SECONDS", 0.05)
    await served.service.switch("m", "v2")
    host = next(n for n, s in served.supervisor.hosts.items() if s.spec.version == "v1")
    state = served.supervisor.hosts[host]
    down = msgspec.structs.replace(state, state="restarting", error="killed by SIGSEGV")
    served.node.heard(HostChanged(down))
    with pytest.raises(LoadError, match="does not stay up: killed by SIGSEGV"):
        await served.service.rollback("m")
    assert served.supervisor.table().stable == "v2"
    monkeypatch.setattr("hotswap.control.switching._UP_SECONDS", 30.0)
    waiting = asyncio.create_task(served.service.rollback("m"))
    await settle()
    served.node.heard(HostChanged(state))
    assert (await waiting).to == "v1"
