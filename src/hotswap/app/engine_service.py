"""The server's control service for an engine: jobs on threads, the plane's counters, aborts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hotswap.control.jobs import Converted, JobRunner, Progress
from hotswap.control.node import Node
from hotswap.control.service import Service
from hotswap.control.switching import Switching
from hotswap.core.spec import Artifact, Ingested, VersionSettings
from hotswap.core.stats import ModelStats
from hotswap.core.views import OperationView, SwitchView
from hotswap.errors import ConfigError, Conflict
from hotswap.ports import Clock
from hotswap.serving.inline import InlinePlane

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


class EngineSwitching(Switching):
    """Switches that can be given up while they prepare."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._aborted: set[str] = set()

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
        self._routes.warming.failures.pop((view.model, view.version), None)
        return await self._operations.update(operation, state="aborted", reason="it was aborted")

    async def change(
        self, name: str, version: str, kind: str, force: bool, key: str | None
    ) -> SwitchView:
        try:
            return await super().change(name, version, kind, force, key)
        except Conflict as exc:
            mine = [o for o in self._operations.all() if (o.model, o.version) == (name, version)]
            ours = [o.id for o in mine if o.id in self._aborted]
            if type(exc) is not Conflict or not ours:
                raise
            self._aborted.difference_update(ours)
            raise Conflict(f"the {kind} to {version!r} was aborted") from exc


class EngineService(Service):
    """`hotswap.control.service.Service` over an `InlinePlane`."""

    def __init__(
        self,
        plane: InlinePlane,
        *,
        node: Node,
        clock: Clock,
        keep_warm_seconds: float,
        **parts: Any,
    ) -> None:
        super().__init__(node=node, clock=clock, keep_warm_seconds=keep_warm_seconds, **parts)
        self._plane = plane
        self._abortable = EngineSwitching(
            node, self._catalogue, self._routes, self._operations, clock, keep_warm_seconds,
            self._check_started,
        )  # fmt: skip
        self._switching = self._abortable

    def stats(self) -> list[ModelStats]:
        return self._plane.stats()

    async def tick(self) -> None:
        """As the server's; what was used lately counts as loaded lately, so that it is not evicted."""
        age = self._clock.wall() - self._clock.monotonic()
        loaded_at = self._routes.loaded_at
        for stats in self.stats():
            key = (stats.model, stats.version)
            if key in loaded_at:
                loaded_at[key] = max(loaded_at[key], stats.last_inference / 1000 - age)
        await super().tick()

    async def abort(self, operation: str) -> OperationView:
        """Give up a switch that is still preparing. Raises `NotFound`, `Conflict`."""
        return await self._abortable.abort(operation)

    async def switched(self, model: str | None, version: str, force: bool) -> OperationView:
        """`switch`, answered as the operation that it was."""
        answer = await self.switch(model, version, force=force)
        return self._operations.get(answer.operation_id)
