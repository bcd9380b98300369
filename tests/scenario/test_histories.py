"""Any history of commands, failures, restarts and store outages leaves traffic where it belongs."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.core.lifecycle import rollback_target
from hotswap.errors import HotswapError
from tests.unit.control.fakes import World, settle

VERSIONS = ("v1", "v2", "v3", "v4")
STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["switch", "load", "unload", "remove", "break", "mend"]),
        st.sampled_from(VERSIONS),
    ),
    st.tuples(
        st.sampled_from(
            ["rollback", "store down", "store up", "control dies", "node dies", "time", "clear"]
        ),
        st.just(""),
    ),
)


class History:
    """Carries out steps and keeps its own book of what should serve."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.serving: str | None = None
        self.bad: set[str] = set()
        self.down = ""

    async def step(self, what: str, version: str) -> None:
        service = self.world.service
        broken = self.world.supervisor.broken
        if what == "break":
            broken["m", version] = ("bad magic", "LoadError")
        elif what == "mend":
            broken.pop(("m", version), None)
        elif what == "store down":
            self.down = self.world.store.failing = "the disk is full"
        elif what == "store up":
            self.down = self.world.store.failing = ""
        elif what in ("control dies", "node dies"):
            # The store is back when control reads it, and what it could not write then is lost.
            self.down = ""
            dies = self.world.restart if what == "control dies" else self.world.full_restart
            await dies()
        elif what == "time":
            self.world.clock.advance(400)
            await service.tick()
        else:
            await self._command(what, version)
        await settle()

    async def _command(self, what: str, version: str) -> None:
        service = self.world.service
        try:
            if what == "switch":
                await service.switch("m", version)
                self.serving = version
                self.bad.discard(version)
            elif what == "rollback":
                left = self.serving
                answer = await service.rollback("m")
                assert answer.to not in self.bad
                assert answer.from_ == left
                if left is not None:
                    self.bad.add(left)
                self.serving = answer.to
            elif what == "load":
                await service.load("m", version)
            elif what == "unload":
                await service.unload("m", version)
            elif what == "remove":
                await service.remove_version("m", version)
            elif what == "clear":
                await service.clear_cache()
        except HotswapError:
            return  # refused: nothing has changed, which `check` sees

    async def check(self) -> None:
        """What clients see is what was last done, whatever happened since."""
        table = self.world.supervisor.table()
        assert table.stable == self.serving
        model = await self.world.service.model("m")
        assert model.active == self.serving
        named = {ref.host for entry in table.versions for ref in entry.hosts}
        assert named <= set(self.world.supervisor.hosts)
        if self.serving is not None and ("m", self.serving) not in self.world.supervisor.broken:
            entry = table.version(self.serving)
            assert entry is not None
            assert entry.hosts
        assert model.previous not in self.bad
        assert model.previous is None or model.previous != self.serving


async def _live(steps: list[tuple[str, str]], folder: Path) -> None:
    world = World(folder / "node")
    await world.restart()
    await world.register("m", *VERSIONS)
    history = History(world)
    for what, version in steps:
        await history.step(what, version)
        await history.check()
    world.store.failing = ""
    await world.service.tick()
    await settle()
    stored = await world.stored()
    assert stored.active == history.serving
    assert stored.intent is None
    view = await world.service.model("m")
    assert rollback_target(stored, frozenset(v.version for v in view.versions)) == view.previous
    world.life.end()
    await settle()


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_traffic_is_where_the_last_command_left_it(steps: list[tuple[str, str]]) -> None:
    """After every step: the version that serves, its hosts, and where a rollback would lead."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_live(steps, Path(folder)))
