"""The server's control service for an engine: jobs on threads, the plane's counters."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hotswap.control.jobs import Converted, JobRunner, Progress
from hotswap.control.service import Service
from hotswap.core.spec import Artifact, Ingested, VersionSettings
from hotswap.core.stats import ModelStats
from hotswap.core.views import OperationView
from hotswap.errors import ConfigError
from hotswap.serving.inline import InlinePlane


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
    """`hotswap.control.service.Service` over an `InlinePlane`."""

    def __init__(self, plane: InlinePlane, **parts: Any) -> None:
        super().__init__(**parts)
        self._plane = plane

    def stats(self) -> list[ModelStats]:
        return self._plane.stats()

    async def switched(self, model: str | None, version: str, force: bool) -> OperationView:
        """`switch`, answered as the operation that it was."""
        answer = await self.switch(model, version, force=force)
        return self._operations.get(answer.operation_id)
