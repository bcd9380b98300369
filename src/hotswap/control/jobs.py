"""Work that would block control, done by a short-lived process (`hotswap.app.job`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from hotswap import errors
from hotswap.config import child_environment
from hotswap.core.spec import Artifact, Ingested, Json, VersionSettings
from hotswap.errors import HotswapError, LoadError

_Kind = TypeVar("_Kind")
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

KEEP_SECONDS: Final = 5.0
_LONGEST_ANSWER: Final = 256 * 1024 * 1024
_MODULE: Final = ("-m", "hotswap.app.job")


class _Answer(msgspec.Struct, frozen=True):
    id: int | None
    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, str] | None = None
    progress: tuple[int, int] | None = None


class Converted(msgspec.Struct, frozen=True):
    """A converted version, and the proof that it answers like the original (as plain values)."""

    ingested: Ingested
    report: Json


class JobRunner:
    """Runs one job at a time in a process that is started when there is one.

    The process ends ``keep_seconds`` after its last job. If it dies, the job that it did fails
    with a `LoadError` that says how, and the next job starts a new one. Cancelling a job kills the
    process; what it had not finished is cleared away by the next. ``python`` is the interpreter
    with its options, for example ``[sys.executable]``; ``environment`` gives the process's. Used
    from one event loop.
    """

    def __init__(
        self,
        python: Sequence[str],
        keep_seconds: float = KEEP_SECONDS,
        environment: Callable[[], Mapping[str, str]] = child_environment,
    ) -> None:
        self._environment = environment
        self._command = (*python, *_MODULE)
        self._keep_seconds = keep_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._ending: asyncio.TimerHandle | None = None
        self._reaping: set[asyncio.Task[None]] = set()
        self._number = 0
        self._closed = False

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
        """Take a version in. Raises what `hotswap.sources.ingest.ingest` raises."""
        request: dict[str, object] = {
            "kind": "ingest",
            "source": source,
            "state_dir": os.fspath(state_dir),
            "allowed_roots": [os.fspath(root) for root in allowed_roots],
            "runtime": runtime,
            "overrides": dict(overrides or {}),
            "in_place": in_place,
        }
        return await self._run(f"taking in {ascii(source)[:100]}", request, Ingested, progress)

    async def convert(
        self,
        artifact: Artifact,
        settings: VersionSettings,
        *,
        state_dir: Path,
        trusted: bool = False,
    ) -> Converted:
        """Convert a version to ONNX, prove it, and take the result in.

        ``trusted``: the operator allows what this artifact may run when it is loaded. Raises
        `UntrustedCode` without it where it matters, and what the conversion raises.
        """
        request: dict[str, object] = {
            "kind": "convert",
            "artifact": artifact,
            "settings": settings,
            "state_dir": os.fspath(state_dir),
            "trusted": trusted,
        }
        return await self._run(f"converting {artifact.entry}", request, Converted, None)

    async def discard(self, artifact: Artifact, *, state_dir: Path) -> bool:
        """Remove the copy of an artifact that no version uses any more; whether there was one.

        Versions with equal content share a copy: the caller sees to it that none is left, and
        that none is being registered. An artifact in place is left alone.
        """
        request: dict[str, object] = {
            "kind": "discard",
            "artifact": artifact,
            "state_dir": os.fspath(state_dir),
        }
        return await self._run(f"removing {artifact.digest}", request, bool, None)

    async def run(
        self,
        what: str,
        request: Mapping[str, object],
        kind: type[_Kind],
        progress: Progress | None = None,
    ) -> _Kind:
        """Have any request of `hotswap.app.job` done; ``what`` it is, for people, if that fails."""
        return await self._run(what, dict(request), kind, progress)

    async def close(self) -> None:
        """End the process; jobs that wait or run fail. May be called again."""
        self._closed = True
        self._stop_timer()
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
            await process.wait()
        await asyncio.gather(*self._reaping)

    async def _run(
        self, what: str, request: dict[str, object], kind: type[_Kind], progress: Progress | None
    ) -> _Kind:
        async with self._lock:
            if self._closed:
                raise errors.Unavailable("the server is stopping: no more versions are taken in")
            self._stop_timer()
            process = await self._started()
            self._number += 1
            try:
                answer = await self._exchange(process, self._number, request, progress)
            except (OSError, EOFError, asyncio.IncompleteReadError, ValueError) as error:
                raise LoadError(f"{what} failed: {await self._gone(process)}") from error
            except BaseException:
                self._abandon(process)
                raise
            self._ending = asyncio.get_running_loop().call_later(self._keep_seconds, self._end)
        if answer.error is not None:
            raise _error(answer.error)
        try:
            return msgspec.json.decode(answer.ok, type=kind)
        except msgspec.DecodeError as error:
            raise LoadError(f"{what} failed: its result cannot be read ({error})") from error

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=self._environment(),
                    limit=_LONGEST_ANSWER,
                    process_group=0,  # a terminal's Ctrl-C is not for it
                )
            except OSError as error:
                raise LoadError(
                    f"the job process could not be started ({error.strerror or error})"
                ) from error
        return self._process

    async def _exchange(
        self,
        process: asyncio.subprocess.Process,
        number: int,
        request: dict[str, object],
        progress: Progress | None,
    ) -> _Answer:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode({"id": number, **request}) + b"\n")
        await process.stdin.drain()
        while True:
            line = await process.stdout.readuntil(b"\n")
            answer = msgspec.json.decode(line, type=_Answer)
            if answer.id != number:
                raise EOFError("an answer to another request")
            if answer.progress is None:
                return answer
            if progress is not None:
                progress(*answer.progress)

    async def _gone(self, process: asyncio.subprocess.Process) -> str:
        """Make sure that the process is over; how it ended, for people."""
        self._process = None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 1.0)
        if process.returncode is None:
            _kill(process)
            await process.wait()
            return "the job process gave no valid answer and was stopped"
        if process.returncode < 0:
            hint = " (perhaps for memory)" if process.returncode == -9 else ""
            return f"the job process was killed by signal {-process.returncode}{hint}"
        return f"the job process ended with status {process.returncode}; its log says why"

    def _abandon(self, process: asyncio.subprocess.Process) -> None:
        """Kill the process in the middle of a job, without waiting (the caller was cancelled)."""
        self._process = None
        _kill(process)
        task = asyncio.create_task(_reap(process))
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    def _end(self) -> None:
        """Let the idle process go: its input ends, and it exits."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            task = asyncio.create_task(_reap(process))
            self._reaping.add(task)
            task.add_done_callback(self._reaping.discard)

    def _stop_timer(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


async def _reap(process: asyncio.subprocess.Process) -> None:
    await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _error(described: Mapping[str, str]) -> HotswapError:
    """The error of that name, if it is one of ours."""
    kind = getattr(errors, described.get("type", ""), None)
    message = described.get("message")
    if isinstance(kind, type) and issubclass(kind, HotswapError):
        return kind(message)
    return LoadError(message)
