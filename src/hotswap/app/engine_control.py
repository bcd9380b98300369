"""The engine's control: the server's own service on an event loop of its own, in a thread.

So a registration can be called from anywhere and wait, hashing and the store never run on the
loop that predicts, and a switch decides here just as it does in a server.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog

from hotswap.app.engine_hosts import EngineHosts, join
from hotswap.app.engine_service import EngineService, ThreadJobs
from hotswap.control.node import Node
from hotswap.errors import HotswapError, StoreError, Unavailable
from hotswap.sources.folder import FolderSource

log = structlog.get_logger("hotswap.engine")

_T = TypeVar("_T")
_TICK_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_SETTLING_SECONDS = 10.0


class ControlThread:
    """An event loop in a thread; everything of control runs there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=self._run, name="hotswap control", daemon=True)
        self._thread.start()
        self.service: EngineService | None = None
        self.source: FolderSource | None = None
        self.node: Node | None = None
        self.hosts: EngineHosts | None = None
        self.jobs: ThreadJobs | None = None
        self.close_store: Callable[[], Coroutine[Any, Any, None]] | None = None

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def submit(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Begin it there."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            work.close()
            raise Unavailable("the engine is stopped") from None

    async def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do it there and wait here, without blocking this loop."""
        return await asyncio.wrap_future(self.submit(work))

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do it there and block this thread until it is done."""
        return self.submit(work).result()

    async def open(self, source: FolderSource | None) -> None:
        """Open the store, restore, adopt what the folder has, and keep watching. On the control loop."""
        service = self.service
        assert service is not None
        await service.open()
        self._spawn(service.run_lazy_loads())
        await service.restore()
        await service.adopt(await self._first_look(source) if source else [], first=True)
        warm, why = service.ready()
        if not warm and await service.models():
            log.warning("not every model can answer", reason=why)
        self._spawn(self._tick(service))
        self._spawn(service.run_rollouts())
        if source is not None:
            self._spawn(self._watch(source, service))

    async def _first_look(self, source: FolderSource) -> list[tuple[str, str, Path]]:
        """What the folder has, once what is just being written is complete."""
        until = self.loop.time() + _SETTLING_SECONDS
        look = await asyncio.to_thread(source.look)
        while look.pending and self.loop.time() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            look = await asyncio.to_thread(source.look)
        for problem in look.problems:
            log.warning("something in the models folder cannot be served", path=problem.path,
                        reason=problem.reason)  # fmt: skip
        return [(found.model, found.version, found.path) for found in look.found]

    async def _watch(self, source: FolderSource, service: EngineService) -> None:
        async for found in source.watch():
            try:
                await service.adopt([(f.model, f.version, f.path) for f in found], first=False)
            except StoreError as exc:
                log.error("versions could not be registered", reason=str(exc))

    async def _tick(self, service: EngineService) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await service.tick()
            except HotswapError as exc:
                log.warning("a check failed; it is made again", reason=str(exc))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        task.add_done_callback(_report)
        self._tasks.append(task)

    async def close(self) -> list[threading.Thread]:
        """End everything that runs on the control loop; the hosts' threads, which end by themselves."""
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        threads: list[threading.Thread] = []
        if self.hosts is not None:
            threads = self.hosts.close()
            await self.hosts.close_processes()
        if self.jobs is not None:
            await self.jobs.close()
        if self.close_store is not None:
            with contextlib.suppress(StoreError):
                await self.close_store()
        return threads

    def end(self) -> None:
        """`close`, then end the thread. Blocks; call it off every event loop."""
        threads = self.wait(self.close())
        join(threads)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("the engine's control failed at a task", exc_info=task.exception())
