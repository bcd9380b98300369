"""Jobs of a replay: take recorded inputs, run a version over them, judge what it answered.

The second runs a model, and so has a process without credentials for itself: it reads and writes
nothing but the replay's own folder, and ends after it.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from hotswap.core.quality_views import Quality
from hotswap.core.signature import Signature
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import HotswapError, LoadError, Unavailable, UntrustedCode
from hotswap.records.replay_values import Done, Kept, Planned

if TYPE_CHECKING:
    import pyarrow as pa

    from hotswap.ports import Executor
    from hotswap.records.dataset import Opened

_T = TypeVar("_T")
Progress = Callable[[int, int], None]

#: The file of what is run, in the replay's folder.
_TAKEN: Final = "taken.parquet"
#: What a run holds besides the model.
_OWN_MEMORY: Final = 1 << 30
_TELL_SECONDS: Final = 0.5


class TakeRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="replay_take"):
    """Take the newest inputs out of the records: see `hotswap.records.replay.plan`."""

    id: int
    root: str
    location: str | None
    model: str
    version: str
    signature: Signature
    since: float | None
    max_rows: int
    by: str | None
    kept: Kept
    now: float


class Taken(msgspec.Struct, frozen=True):
    """They are in ``folder``."""

    folder: str
    planned: Planned


class RunRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="replay_run"):
    """Run a version over what was taken. ``trusted``: the operator allows what it may run."""

    id: int
    taken: Taken
    model: str
    version: str
    artifact: Artifact
    settings: VersionSettings
    public: Signature
    roots: list[str]
    trusted: bool = False
    allow_unvalidated: bool = False


class JudgeRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="replay_judge"):
    """Measure what it answered against what was answered and the labels; keep the replay."""

    id: int
    root: str
    location: str | None
    taken: Taken
    model: str
    version: str
    by: str | None
    hidden: tuple[str, ...] = ()
    mature_before: float | None = None


class DropRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="replay_drop"):
    """Nothing becomes of it: remove what was taken."""

    id: int
    taken: Taken


ReplayRequest = TakeRequest | RunRequest | JudgeRequest | DropRequest


def replay_job(request: ReplayRequest, progress: Progress) -> object:
    """Do it. Raises hotswap errors."""
    try:
        if isinstance(request, TakeRequest):
            return take(request)
        if isinstance(request, RunRequest):
            return run(request, progress)
        if isinstance(request, JudgeRequest):
            return judge(request)
        return drop(request)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Unavailable(f"the replay cannot be read or written: {reason}") from error


def take(request: TakeRequest) -> Taken:
    """Raises what `hotswap.records.replay.plan` raises."""
    from hotswap.records import replay, replay_store

    root = Path(request.root)

    def all_of_it(opened: Opened) -> Taken:
        planned = replay.plan(
            opened, request.model, request.signature, max_rows=request.max_rows, by=request.by,
            kept=request.kept,
        )  # fmt: skip
        folder = replay_store.begin(root, request.model, request.version, request.now)
        try:
            hidden = (*request.kept.redacted, *request.kept.hashed)
            replay.take(opened, planned, folder / _TAKEN, hidden)
        except BaseException:
            replay_store.drop(folder)
            raise
        return Taken(str(folder), planned)

    return _opened(
        root, request.model, all_of_it, since=request.since, location=request.location
    )  # fmt: skip


def run(request: RunRequest, progress: Progress) -> Done:
    """Load it as a host would, and ask it. Raises whatever is wrong with the version."""
    from hotswap.app.host import Describe
    from hotswap.records import dataset, replay

    artifact, settings, planned = request.artifact, request.settings, request.taken.planned
    name = f"{request.model}/{request.version}"
    roots = dict.fromkeys((artifact.folder, *request.roots), name) | {sys.prefix: "python"}
    describe = Describe(roots)
    progress(0, planned.rows)
    executor = _loaded(request, name, describe)
    outputs = tuple(spec.name for spec in request.public.outputs)
    folder = Path(request.taken.folder)
    numbers = itertools.count(1)

    def write(table: pa.Table) -> None:
        dataset.write_parquet(folder, request.model, table, next(numbers))

    try:
        return replay.run(
            replay.taken(folder / _TAKEN, settings.batch_rows),
            planned,
            request.version,
            lambda inputs, _: executor.predict(inputs, outputs),
            write,
            finite=settings.finite,
            describe=describe,
            progress=_seldom(progress),
        )
    finally:
        executor.close()


def _loaded(request: RunRequest, name: str, describe: Callable[[BaseException], str]) -> Executor:
    """Its failures are told as a host tells them."""
    from hotswap.app.engine_load import load_version
    from hotswap.plugins import runtimes

    artifact, settings = request.artifact, request.settings
    if artifact.runtime not in runtimes():
        raise LoadError(f"there is no runtime {artifact.runtime!r} here: install what offers it")
    runtime = runtimes()[artifact.runtime]
    why = runtime.runs_code(Path(artifact.folder), artifact.entry)
    if why is not None and not request.trusted:
        raise UntrustedCode(why)
    runtime.preload()
    if settings.memory_mb is not None:
        _limit_memory(settings.memory_mb * 1024 * 1024 + _OWN_MEMORY)
    try:
        executor, _ = load_version(
            artifact, settings, request.public, allow_unvalidated=request.allow_unvalidated
        )
    except HotswapError as problem:
        raise type(problem)(describe(problem)) from problem
    except (Exception, SystemExit) as problem:
        raise LoadError(f"{name} could not be loaded: {describe(problem)}") from problem
    return executor


def judge(request: JudgeRequest) -> Quality:
    """The report; the replay is kept."""
    from hotswap.records import quality, replay, replay_store

    root, folder = Path(request.root), Path(request.taken.folder)
    stable = request.taken.planned.stable(request.version)
    pair = stable, replay.asked(request.version, stable)
    (folder / _TAKEN).unlink(missing_ok=True)
    found = _opened(
        folder,
        request.model,
        lambda opened: quality.measure(
            opened,
            request.model,
            versions=pair,
            stable=stable,
            by=request.by,
            hidden=request.hidden,
            mature_before=request.mature_before,
            whole=False,
        ),
        labels_from=(root, request.location),
    )
    replay_store.keep(root, request.model, folder)
    return found


def drop(request: DropRequest) -> bool:
    """Whether there is nothing left of it."""
    from hotswap.records import replay_store

    replay_store.drop(Path(request.taken.folder))
    return not Path(request.taken.folder).exists()


def _opened(root: Path, model: str, work: Callable[[Opened], _T], **more: object) -> _T:
    import duckdb

    from hotswap.records import dataset

    for verify in (False, True):
        with dataset.open(root, model, verify=verify, **more) as opened:  # type: ignore[arg-type]
            try:
                return work(opened)
            except duckdb.Error:  # a file is damaged inside: without it
                if verify:
                    raise
    raise AssertionError


def _seldom(progress: Progress) -> Progress:
    """Tells what matters: that it goes on, a few times a second."""
    told = 0.0

    def tell(done: int, rows: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TELL_SECONDS:
            told = now
            progress(done, rows)

    return tell


def _limit_memory(extra_bytes: int) -> None:
    if sys.platform != "win32":
        from hotswap.app.platform import limit_memory

        limit_memory(extra_bytes)


__all__ = [
    "DropRequest", "JudgeRequest", "ReplayRequest", "RunRequest", "TakeRequest", "Taken", "drop",
    "judge", "replay_job", "run", "take",
]  # fmt: skip
