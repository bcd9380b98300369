"""Following a registry that a test holds in its hand, over a control in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from hotswap.control.registry_asking import RegistrySpec
from hotswap.control.registry_sync import RegistrySync
from hotswap.core.registry_views import FollowedView, Listed, Told
from hotswap.core.registry_wishes import Letter
from hotswap.core.views import VersionView
from hotswap.errors import (
    Conflict,
    HotswapError,
    LoadError,
    RegistryRefused,
    StoreError,
    Unavailable,
)
from hotswap.stores.memory import MemoryStore
from hotswap.testing.clock import ManualClock
from hotswap.testing.fake_control import FakeControl


class Registry:
    """`Asking` of values in memory. ``down``, when set, is raised by everything."""

    def __init__(self) -> None:
        self.models: dict[str, Listed] = {}
        self.down: HotswapError | None = None
        self.looks = 0
        self.asked: Mapping[str, Sequence[str]] = {}
        self.told: list[tuple[str, Letter, str]] = []
        self.refuses: HotswapError | None = None

    def set(self, name: str = "m", **versions: Any) -> None:
        """What it says from now on."""
        known = self.models.get(name, Listed(name))
        self.models[name] = msgspec.structs.replace(known, **versions)

    async def look(self, asked: Mapping[str, Sequence[str]]) -> list[Listed]:
        self.looks += 1
        self.asked = asked
        if self.down is not None:
            raise self.down
        return list(self.models.values())

    async def tell(self, name: str, letter: Letter, report: str) -> Told:
        if self.down is not None:
            raise self.down
        if self.refuses is not None:
            raise self.refuses
        self.told.append((name, letter, report))
        if letter.move_to:
            self.set(name, stable=letter.move_to)
            return Told(letter.move_to, True)
        return Told(None, False)


class Control(FakeControl):
    """Answers a registration of the same content again, as the real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: dict[str, HotswapError] = {}
        #: what a person does while the version of that uri is fetched
        self.meanwhile: dict[str, Callable[[], Awaitable[object]]] = {}

    async def register(self, model: str, uri: str, **more: Any) -> VersionView:
        if uri in self.meanwhile:
            await self.meanwhile.pop(uri)()
        if uri in self.broken:
            raise self.broken[uri]
        known = self.table.get(model)
        for view in known.versions if known is not None else ():
            if view.version == more["version"]:
                self.calls.append(("compare", model, uri))
                return view
        return await super().register(model, uri, **more)


class World:
    """All of it, and a loop that follows. ``settle`` waits until nothing moves any more."""

    def __init__(self, **spec: Any) -> None:
        self.registry, self.control = Registry(), Control()
        self.store, self.clock = MemoryStore(), ManualClock(wall=1.6e9)
        self.spec = RegistrySpec("http://mlflow", **spec)
        self.task: asyncio.Task[None] | None = None
        self.sync: RegistrySync

    def start(self) -> None:
        self.sync = RegistrySync(
            self.control, self.registry, self.store, self.clock, self.spec, lambda: 0.5
        )
        self.task = asyncio.create_task(self.sync.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def restart(self) -> None:
        """As after a restart of control: what is stored is all there is."""
        await self.stop()
        self.start()

    async def look(self) -> FollowedView:
        """Have it look, and wait until it has nothing more to do; the model ``m``."""
        before = self.registry.looks
        self.sync.hint()
        await self.until(lambda: self.registry.looks > before and not self.sync._busy)
        return await self.model()

    async def model(self) -> FollowedView:
        return next(each for each in (await self.sync.view()).models if each.name == "m")

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            for _ in range(5):  # what is ready has its turn
                await asyncio.sleep(0)
            while not condition():  # noqa: ASYNC110 - what is waited for is no event of ours
                await asyncio.sleep(0.001)

    def done(self, *kinds: str) -> list[Any]:
        return [call[:3] for call in self.control.calls if call[0] in kinds]

    @property
    def active(self) -> str | None:
        return self.control.table["m"].active


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(rollout={"guardrails": [{"metric": "error_rate"}]}, percentage=20.0)
    await world.store.open()
    yield world
    await world.stop()


@pytest.fixture
async def writing() -> AsyncIterator[World]:
    world = World(write=True)
    await world.store.open()
    yield world
    await world.stop()


async def test_aliases_are_followed(world: World) -> None:
    """Registered, active, tried with the operator's body; then nothing is done again."""
    world.registry.set(stable="1", candidate="2")
    world.start()
    view = await world.look()
    assert world.active == "1"
    assert world.done("register") == [
        ("register", "m", "models:/m/1"),
        ("register", "m", "models:/m/2"),
    ]
    rollout = world.control.views[view.rollout or ""]
    assert rollout.spec["config"]["challenger_percentage"] == 20
    assert (rollout.version, rollout.strategy) == ("2", "champion_challenger")
    assert (view.stable_done, view.candidate_done, view.problems) == ("1", "2", ())
    calls = len(world.control.calls)
    await world.look()
    await world.restart()
    view = await world.look()
    assert len(world.control.calls) == calls
    assert view.rollout == rollout.id
    assert world.registry.asked == {"m": ["1", "2"]}


async def test_a_moved_alias_takes_over_and_a_removed_one_ends_its_rollout(world: World) -> None:
    """Stable by a switch in whose way the registry's own rollout does not stand."""
    world.registry.set(stable="1", candidate="2")
    world.start()
    first = await world.look()
    world.registry.set(candidate="3")
    second = await world.look()
    assert world.control.views[first.rollout or ""].reason == "superseded"
    assert world.control.views[second.rollout or ""].version == "3"
    world.registry.set(candidate=None)
    await world.look()
    assert world.control.views[second.rollout or ""].phase == "RolledBack"
    world.registry.set(stable="2")
    await world.look()
    assert world.active == "2"


async def test_a_rollout_that_was_not_remembered_is_found_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control ended between its start and the store: it is not started twice, even if it is over."""
    world.registry.set(stable="1")
    world.start()
    await world.look()
    good = world.store.put

    async def put(*_: Any) -> int:
        raise StoreError("the disk is full")

    monkeypatch.setattr(world.store, "put", put)
    world.registry.set(candidate="2")
    first = (await world.look()).rollout
    monkeypatch.setattr(world.store, "put", good)
    await world.restart()
    assert (await world.look()).rollout == first
    world.registry.set(candidate="3")
    monkeypatch.setattr(world.store, "put", put)
    second = (await world.look()).rollout or ""
    world.control.see(second, phase="RolledBack", reason="guardrail", final=True)
    monkeypatch.setattr(world.store, "put", good)
    await world.restart()
    assert (await world.look()).rollout == second
    assert len(world.done("start_rollout")) == 2


@pytest.mark.parametrize("alias", ["stable", "candidate"])
async def test_a_rollout_started_while_a_version_is_fetched_is_not_touched(
    world: World, alias: str
) -> None:
    """What was decided before a long download is decided again after it."""
    world.registry.set(stable="1", candidate="2")
    world.start()
    await world.look()

    async def by_hand() -> None:
        body = {"model": "m", "version": "2", "strategy": "canary", "steps": [50]}
        await world.control.start_rollout({**body, "on_running": "replace", "force": True})

    world.control.meanwhile["models:/m/3"] = by_hand
    world.registry.set(**{alias: "3"})
    view = await world.look()
    assert world.control.views["r-2"].phase == "Progressing"
    assert len(world.control.views) == 2
    assert (world.active, view.problems) == ("1", ())
    assert "rollout r-2 runs" in view.notes[0]
    await world.control.command_rollout("r-2", "abort")
    await world.look()
    assert (world.active == "3") is (alias == "stable")
    assert ("r-3" in world.control.views) is (alias == "candidate")


async def test_two_names_that_become_one_are_not_mixed(world: World) -> None:
    """The later one is not followed, and it is said."""
    from hotswap.core.registry_wishes import local_name

    world.registry.set("a b", stable="1")
    world.registry.set(local_name("a b"), stable="7")
    world.registry.set(stable="1")
    world.start()
    await world.look()
    models = {each.name: each for each in (await world.sync.view()).models}
    assert models["a b"].active == "1"
    assert "not followed" in models[local_name("a b")].problems[0]


async def test_an_outage_is_waited_out(world: World) -> None:
    """What was seen stays in force; since when is told; looks come ever later, then as before."""
    world.registry.set(stable="1")
    world.start()
    await world.look()
    world.registry.down = Unavailable("the registry cannot be asked")
    before = world.registry.looks
    world.clock.advance(31)
    world.sync.hint()
    await world.until(lambda: world.registry.looks > before)
    view = await world.sync.view()
    assert view.down_since == world.clock.wall()
    assert "cannot be asked" in view.error
    assert world.active == "1"
    gaps = []
    for _ in range(4):
        began = world.clock.monotonic()
        gaps.append(round(world.sync._look_at - began))
        world.clock.advance(world.sync._look_at - began)
        before = world.registry.looks
        world.sync._wake.set()  # the clock is a test's: the loop's own timer would take its time
        await world.until(lambda before=before: world.registry.looks > before)  # type: ignore[misc]
    assert gaps == [30, 60, 60, 60]
    world.registry.down = None
    world.registry.set(stable="2")
    await world.look()
    assert (await world.sync.view()).down_since is None
    assert world.active == "2"


async def test_what_cannot_be_done_is_tried_ever_later(world: World) -> None:
    """The old version serves, the reason is shown; an alias that moves is followed at once."""
    world.registry.set(stable="1")
    world.start()
    await world.look()
    world.control.broken["models:/m/2"] = LoadError("it is no model")
    world.registry.set(stable="2")
    view = await world.look()
    assert "it is no model" in view.problems[0]
    assert world.active == "1"
    del world.control.broken["models:/m/2"]
    assert (await world.look()).problems == view.problems
    world.clock.advance(31)
    assert (await world.look()).problems == ()
    assert world.active == "2"
    world.control.broken["models:/m/3"] = LoadError("it is no model")
    world.registry.set(stable="3")
    await world.look()
    world.registry.set(stable="1")
    assert (await world.look()).problems == ()
    assert world.active == "1"


async def test_changed_content_is_refused_and_an_outage_is_no_change(world: World) -> None:
    """A version that is here already is compared; if it cannot be, it is the registered one."""
    world.registry.set(stable="1")
    world.start()
    await world.look()
    world.registry.set(stable="2")
    await world.look()
    world.control.broken["models:/m/1"] = Conflict("it is registered with other content")
    world.registry.set(stable="1")
    assert "other content" in (await world.look()).problems[0]
    assert world.active == "2"
    world.control.broken["models:/m/1"] = Unavailable("the store of artifacts is away")
    world.clock.advance(1000)
    view = await world.look()
    assert world.active == "1"
    assert "not compared again" in view.notes[-1]


async def test_a_version_of_another_origin_is_not_taken_for_it(world: World) -> None:
    """A number that the folder of models used already is not the registry's."""
    await FakeControl.register(world.control, "m", "/models/m/1", version="1")
    world.registry.set(stable="1")
    world.start()
    assert "came from elsewhere" in (await world.look()).problems[0]


async def test_a_verdict_is_told_once_the_registry_is_there(writing: World) -> None:
    """With the report's address; the alias that it moved is no new order."""
    world = writing
    world.registry.set(stable="1", candidate="2")
    world.start()
    view = await world.look()
    rollout = view.rollout or ""
    world.registry.down = Unavailable("away")
    world.sync.hint()
    await world.until(lambda: world.sync._down_since is not None)
    await world.control.command_rollout(rollout, "promote")
    await world.until(lambda: world.sync._followed["m"].memory.letters)
    assert "promoted" in (await world.model()).unsent[0]
    world.registry.down = None
    view = await world.look()
    letter = Letter(rollout, "2", "promoted", "1", "2")
    report = f"http://127.0.0.1:2/api/v1/rollouts/{rollout}"
    assert world.registry.told == [("m", letter, report)]
    assert (view.stable_done, view.unsent, world.active) == ("2", (), "2")
    await world.restart()
    await world.look()
    assert len(world.registry.told) == 1
    world.control.see(rollout, phase="RolledBack", reason="bake", final=True)
    world.control._activate("m", "1")
    await world.until(lambda: len(world.registry.told) == 2)
    assert world.registry.told[1][1] == Letter(rollout, "2", "rolled back: bake", "2", "1")


async def test_a_registry_that_refuses_is_not_pressed(writing: World) -> None:
    """What it does not take is said once, and done with."""
    world = writing
    world.registry.set(stable="1", candidate="2")
    world.start()
    view = await world.look()
    world.registry.refuses = RegistryRefused("the registry refuses: no such version")
    await world.control.command_rollout(view.rollout or "", "promote")
    await world.until(lambda: world.sync._followed["m"].memory.verdicts)
    view = await world.look()
    assert view.unsent == ()
    assert world.registry.told == []


@pytest.mark.parametrize(
    "why", ["telling the registry failed: the job process", "not allowed (403)"]
)
async def test_what_is_no_refusal_is_told_later(writing: World, why: str) -> None:
    """The process that tells died, or may not tell now: the verdict waits, over a restart too."""
    world = writing
    world.registry.set(stable="1", candidate="2")
    world.start()
    view = await world.look()
    world.registry.refuses = LoadError(why)
    await world.control.command_rollout(view.rollout or "", "promote")
    await world.until(lambda: world.sync._followed["m"].memory.letters)
    assert "promoted" in (await world.look()).unsent[0]
    await world.restart()
    assert "promoted" in (await world.look()).unsent[0]
    world.registry.refuses = None
    assert (await world.look()).unsent == ()
    assert [letter.move_to for _, letter, _ in world.registry.told] == ["2"]


async def test_a_store_that_fails_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start it is waited for; later it is tried again, and nothing is done twice."""
    world.registry.set(stable="1", candidate="2")
    world.start()
    await world.look()
    fails = StoreError("the disk is full")

    async def put(*_: Any) -> int:
        raise fails

    world.registry.set(stable="3")
    good = world.store.put
    monkeypatch.setattr(world.store, "put", put)
    await world.look()
    assert world.active == "3"
    monkeypatch.setattr(world.store, "put", good)
    await world.look()
    await world.restart()
    view = await world.look()
    assert (world.active, view.stable_done) == ("3", "3")
    assert world.done("switch") == [("switch", "m", "1"), ("switch", "m", "3")]
