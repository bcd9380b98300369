"""The server's control service for an engine: jobs on threads, the plane's counters."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hotswap.control.jobs import Converted, JobRunner, Progress
from hotswap.control.service import Service
from hotswap.core.rollout_views import RolloutView
from hotswap.core.spec import Artifact, Ingested, VersionSettings
from hotswap.core.stats import ModelStats
from hotswap.core.views import OperationView
from hotswap.errors import ConfigError, Conflict, HotswapError
from hotswap.serving.inline import InlinePlane

_ASK_SECONDS = 0.005


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
    """`hotswap.control.service.Service` over an `InlinePlane`.

    ``apart``: candidates run in processes, while stable versions run within the program.
    """

    def __init__(self, plane: InlinePlane, *, apart: bool, **parts: Any) -> None:
        super().__init__(**parts)
        self._plane = plane
        self._apart = self._rollouts.apart = apart

    def is_candidate(self, model: str, version: str) -> bool:
        """Whether a running rollout is about that version."""
        running = self._rollouts.running(model)
        return running is not None and running.version == version

    async def start_rollout(self, body: dict[str, Any], *, who: str = "") -> RolloutView:
        if self._apart:
            with contextlib.suppress(HotswapError):  # what is wrong with it is told below
                plan = await self.plan_rollout(body)
                await self._unload_from_here(plan.model, plan.version)
        return await super().start_rollout(body, who=who)

    async def command_rollout(self, id: str, command: str, **more: Any) -> RolloutView:
        if self._apart and command == "retry":
            view = await self.rollout(id)
            if view.final:
                await self._unload_from_here(view.model, view.version)
        return await super().command_rollout(id, command, **more)

    async def bring_in(self, model: str) -> None:
        """See `hotswap.Engine.bring_in`."""
        document = self._catalogue.model(model)
        running = self._rollouts.running(model)
        if document.active is None:
            raise Conflict(f"model {model!r} has no active version: switch to one first")
        if running is not None:
            raise Conflict(
                f"rollout {running.id} of model {model!r} is {running.phase}: its versions stay "
                "where they are until it is over"
            )
        apart = [s for s in self._node.warm(model, document.active) if s.pid is not None]
        if apart:
            version = self._catalogue.version(model, document.active)
            instances = [state.spec.instance for state in apart]
            await self._warming._start(version, document.signature, instances)
            async with self._routes.lock(model):
                for state in apart:
                    self._node.leave(state.spec)
                await self._routes.republish(model)

    async def _unload_from_here(self, model: str, version: str) -> None:
        """A version that is loaded within the program is loaded anew, in a process of its own."""
        document = self._catalogue.model(model)
        within = [s for s in self._node.warm(model, version) if s.pid is None]
        if within and document.active != version and not self._routes.held(model, version):
            await self.unload(model, version)
            for state in within:
                while state.spec.host in self._node.hosts:  # noqa: ASYNC110 - its thread ends
                    await asyncio.sleep(_ASK_SECONDS)

    def stats(self) -> list[ModelStats]:
        return self._plane.stats()

    async def switched(self, model: str | None, version: str, force: bool) -> OperationView:
        """`switch`, answered as the operation that it was."""
        answer = await self.switch(model, version, force=force)
        return self._operations.get(answer.operation_id)
