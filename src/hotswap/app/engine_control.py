"""The engine's control: the server's own service on an event loop of its own, in a thread.

So a registration can be called from anywhere and wait, hashing and the store never run on the
loop that predicts, and a switch decides here just as it does in a server.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from hotswap.app.engine_hosts import EngineHosts, join
from hotswap.control.jobs import Converted, JobRunner, Progress
from hotswap.control.node import Node
from hotswap.control.service import Service
from hotswap.core.spec import Artifact, Ingested, VersionSettings
from hotswap.core.stats import ModelStats
from hotswap.core.views import OperationView, SwitchView
from hotswap.errors import ConfigError, Conflict, HotswapError, StoreError, Unavailable
from hotswap.serving.inline import InlinePlane
from hotswap.sources.folder import FolderSource

log = structlog.get_logger("hotswap.engine")

_T = TypeVar("_T")
_TICK_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_SETTLING_SECONDS = 10.0
_TURNS = 8


class ThreadJobs(JobRunner):
    """Takes versions in on a thread instead of in a process of its own."""

    def __init__(self) -> None:
        super().__init__([sys.executable])

    async def ingest(
        self,
        source: str,
        *,
        state_dir: Path,
        allowed_roots: Sequence[Path],
        runtime: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        in_place: bool = False,
        progress: Progress | None = None,
    ) -> Ingested:
        from hotswap.plugins import find_runtime
        from hotswap.sources.ingest import ingest

        # The caller is the program itself: it may read whatever its process may.
        roots = [Path(Path(source).anchor or Path.cwd().anchor)]
        return await asyncio.to_thread(
            ingest, source if source.startswith("file:") else Path(source), state_dir, roots,
            find_runtime, wanted_runtime=runtime, overrides=overrides, in_place=in_place,
            progress=progress,
        )  # fmt: skip

    async def convert(
        self,
        artifact: Artifact,
        settings: VersionSettings,
        *,
        state_dir: Path,
        trusted: bool = False,
    ) -> Converted:
        if sys.platform == "win32":
            raise ConfigError(
                "compile: onnx does not work within a program on Windows: convert the version "
                "with 'hotswap models convert' first"
            )
        # The registry asks the policy before it converts anything.
        return await super().convert(artifact, settings, state_dir=state_dir, trusted=True)

    async def discard(self, artifact: Artifact, *, state_dir: Path) -> bool:
        from hotswap.sources.ingest import discard

        return await asyncio.to_thread(discard, artifact, state_dir)


class EngineService(Service):
    """The server's service, with the plane's counters, and operations that can be aborted."""

    def __init__(self, plane: InlinePlane, **parts: Any) -> None:
        super().__init__(**parts)
        self._plane = plane
        self._aborted: set[str] = set()

    def stats(self) -> list[ModelStats]:
        return self._plane.stats()

    async def abort(self, operation: str) -> OperationView:
        """Give up a switch that is still preparing. Raises `NotFound`, `Conflict`."""
        view = self._operations.get(operation)
        preparing = self._preparing.get(view.model)
        if view.state != "preparing" or preparing is None or preparing[0] != operation:
            why = f": {view.reason}" if view.reason else ""
            raise Conflict(f"operation {operation} cannot be aborted: it is {view.state}{why}")
        self._aborted.add(operation)
        del self._preparing[view.model]
        preparing[1].cancel()
        await asyncio.wait([preparing[1]])
        for state in list(self._node.hosts.values()):
            mine = (state.spec.model, state.spec.version) == (view.model, view.version)
            if mine and state.state == "starting":
                self._node.stop(state.spec.host)
        for _ in range(_TURNS):  # whoever waits for the switch hears of it first
            await asyncio.sleep(0)
        self._warming.failures.pop((view.model, view.version), None)
        return await self._operations.update(operation, state="aborted", reason="it was aborted")

    async def _change(
        self, name: str, version: str, kind: str, force: bool, key: str | None
    ) -> SwitchView:
        try:
            return await super()._change(name, version, kind, force, key)
        except Conflict as exc:
            mine = [o for o in self._operations.all() if (o.model, o.version) == (name, version)]
            if any(o.id in self._aborted and o.state in ("superseded", "aborted") for o in mine):
                raise Conflict(f"the {kind} to {version!r} was aborted") from exc
            raise

    async def switched(self, model: str | None, version: str, force: bool) -> OperationView:
        """`switch`, answered as the operation that it was."""
        answer = await self.switch(model, version, force=force)
        return self._operations.get(answer.operation_id)


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
        self._spawn(self._tick(service))
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
        threads = self.hosts.close() if self.hosts is not None else []
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
