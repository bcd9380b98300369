"""What keeps a node as it should be: memory, warmth, lazy loads, what could not be saved."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.node import Node
from hotswap.control.routes import Routes
from hotswap.core.eviction import Resident, surplus
from hotswap.core.stats import ModelStats
from hotswap.errors import HotswapError, StoreError
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

_LAZY_RETRY_SECONDS = 30.0
_RETRY_SECONDS = 30.0

Command = Callable[[str, str], Awaitable[object]]


class Upkeep:
    """``load`` and ``unload`` are the service's; ``bring_up`` warms a model's active version."""

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        clock: Clock,
        memory_of: Callable[[int], int],
        memory_budget: int,
        stats: Callable[[], list[ModelStats]],
    ) -> None:
        self._stats = stats
        self.memory: dict[str, int] = {}
        self.routes: Routes
        self.load: Command
        self.unload: Command
        self.bring_up: Callable[[str], Awaitable[None]]
        self._node = node
        self._catalogue = catalogue
        self._clock = clock
        self._memory_of = memory_of
        self._budget = memory_budget
        self._measure_at = 0.0
        self._lazy: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._lazy_waiting: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Future[object]] = set()

    def connect(
        self,
        routes: Routes,
        load: Command,
        unload: Command,
        bring_up: Callable[[str], Awaitable[None]],
    ) -> None:
        """Say what to act through (the routes need `residents`, so these come after)."""
        self.routes = routes
        self.load = load
        self.unload = unload
        self.bring_up = bring_up

    def wanted(self, model: str, version: str) -> None:
        """A client asked for a version that is not warm: one such load at a time."""
        key = (model, version)
        failed = self.routes.warming.failed_at.get(key)
        recently = failed is not None and self._clock.monotonic() - failed < _LAZY_RETRY_SECONDS
        if key not in self._lazy_waiting and not recently:
            self._lazy_waiting.add(key)
            self._lazy.put_nowait(key)

    async def run_lazy_loads(self) -> None:
        """For ever: load what clients asked for, in the order in which they asked."""
        while True:
            model, version = await self._lazy.get()
            try:
                await self.load(model, version)
            except HotswapError as exc:
                log.warning(
                    "a version could not be loaded", model=model, version=version, reason=str(exc)
                )
            finally:
                self._lazy_waiting.discard((model, version))

    async def tick(self) -> None:
        """Once a second or so: memory, what has been warm long enough, what could not be saved."""
        now = self._clock.monotonic()
        if now >= self._measure_at:
            await self._measure()
            # Reading a process's memory takes the kernel a while: less often the more there are.
            self._measure_at = now + max(2.0, 0.02 * len(self.memory))
        self._node.stop_removed(self._catalogue.registered)
        if self._catalogue.dirty:
            with contextlib.suppress(StoreError):
                await self._catalogue.flush()
        for (model, version), until in list(self.routes.warm_until.items()):
            if until <= now and not self.routes.held(model, version):
                self.routes.warm_until.pop((model, version))
                with contextlib.suppress(HotswapError):
                    await self.unload(model, version)
        for resident in surplus(self.residents(), self._budget, now):
            with contextlib.suppress(HotswapError):
                await self.unload(resident.model, resident.version)
        await self._retry_active(now)

    async def _measure(self) -> None:
        """What each host holds alone."""
        pids = {h: s.pid for h, s in self._node.hosts.items() if s.pid and s.state == "ready"}
        self.memory = await asyncio.to_thread(
            lambda: {host: self._memory_of(pid) for host, pid in pids.items()}
        )

    async def _retry_active(self, now: float) -> None:
        """An active version that is not warm is tried again now and then."""
        for name, model in list(self._catalogue.models.items()):
            if model.active is None or self._node.warm(name, model.active):
                continue
            failed = self.routes.warming.failed_at.get((name, model.active), -1e9)
            if now - failed >= _RETRY_SECONDS and not self.routes.warming.loading(
                name, model.active
            ):
                # Beside the tick: a load takes its time, and the rest must not wait for it.
                self._in_background(self.bring_up(name))

    def _in_background(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def evict(self, model: str, version: str) -> None:
        """Unload it in the background."""
        self._in_background(self.unload(model, version))

    def residents(self) -> list[Resident]:
        """Loaded versions with what they hold and when they were last used (monotonic)."""
        memory: dict[tuple[str, str], int] = {}
        for host, state in self._node.hosts.items():
            if state.report is None:
                continue
            key = (state.spec.model, state.spec.version)
            own = self.memory.get(host, state.report.memory_bytes)
            memory[key] = memory.get(key, 0) + own
        age = self._clock.wall() - self._clock.monotonic()
        used: dict[tuple[str, str], float] = {}
        for stats in self._stats():
            key = (stats.model, stats.version)
            used[key] = max(used.get(key, 0.0), stats.last_inference / 1000 - age)
        return [
            Resident(
                model, version, size,
                max(used.get((model, version), 0.0), self.routes.loaded_at.get((model, version), 0.0)),
                self._held(model, version),
            )
            for (model, version), size in sorted(memory.items())
        ]  # fmt: skip

    def _held(self, model: str, version: str) -> bool:
        document = self._catalogue.models.get(model)
        if document is None:
            return False
        held = document.active == version or (model, version) in self.routes.warm_until
        return held or self.routes.held(model, version)
