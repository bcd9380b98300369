"""Replays: a registered version over recorded inputs, one after another, in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec

from hotswap.control.catalogue import Catalogue
from hotswap.control.hidden import hidden_inputs
from hotswap.control.jobs import Progress
from hotswap.control.operations import Operations
from hotswap.control.recorded import Recorded
from hotswap.control.registry import Registry
from hotswap.control.warming import Policy
from hotswap.core.lifecycle import ModelDocument, VersionDocument
from hotswap.core.quality_views import Quality
from hotswap.core.replay_views import Replay
from hotswap.core.spec import VersionSettings
from hotswap.errors import Conflict, HotswapError, LoadError
from hotswap.ports import Clock

MAX_ROWS: Final = 100_000
#: What a call may take above the version's own limits; this process is nobody's first.
_SLACK: Final = 60.0


class _Planned(msgspec.Struct, frozen=True):
    sources: list[Any]
    where: str
    rows: int
    requests: int
    left_out: int
    answered: dict[str, int]


class _Taken(msgspec.Struct, frozen=True):
    folder: str
    planned: _Planned


class _Done(msgspec.Struct, frozen=True):
    errors: int
    seconds: float
    problems: tuple[str, ...]


class Replaying:
    """One at a time: others wait. ``recorded`` None: nothing is recorded here."""

    def __init__(
        self,
        recorded: Recorded | None,
        catalogue: Catalogue,
        registry: Registry,
        policy: Policy,
        operations: Operations,
        clock: Clock,
    ) -> None:
        self._recorded = recorded
        self._catalogue = catalogue
        self._registry = registry
        self._policy = policy
        self._operations = operations
        self._clock = clock
        self._turn = asyncio.Lock()

    async def replay(
        self,
        model: str,
        version: str,
        *,
        since: float | None = None,
        max_rows: int = MAX_ROWS,
        by: str | None = None,
    ) -> Replay:
        """See `hotswap.control.interface.Control.replay`."""
        recorded, document = self._recorded, self._catalogue.model(model)
        self._registry.check(model, version)
        wanted = self._catalogue.version(model, version)
        self._policy.check_trust(wanted.runs_code, wanted.record.artifact.digest)
        if recorded is None:
            raise Conflict(
                "nothing is recorded here, so there is nothing to replay: start the server with "
                "--records on"
            )
        if document.signature is None:
            raise Conflict(
                f"model {model!r} has answered nothing yet, so there is nothing to replay"
            )
        operation = self._operations.begin("replay", model, version, document.active, None)
        try:
            async with self._turn:
                found = await self._replay(
                    recorded, document, wanted, operation.id, since, max_rows, by
                )
        except BaseException as problem:
            why = str(problem) if isinstance(problem, HotswapError) else "it was ended"
            await self._operations.update(operation.id, state="failed", reason=why)
            raise
        alike = "" if found.agreement is None else f", {found.agreement:.2%} answered alike"
        said = f"{found.rows:,} rows: {found.errors:,} failed{alike}"
        await self._operations.update(operation.id, state="done", reason=said)
        return found

    async def _replay(
        self,
        recorded: Recorded,
        document: ModelDocument,
        wanted: VersionDocument,
        operation: str,
        since: float | None,
        max_rows: int,
        by: str | None,
    ) -> Replay:
        began = self._clock.monotonic()
        model, version = wanted.record.model, wanted.record.version
        what = f"the replay of {model}/{version}"
        place = {"root": str(recorded.root), "location": recorded.location, "model": model}
        kept = {
            "columns": recorded.columns,
            "redacted": recorded.redacted,
            "hashed": recorded.hashed,
        }
        taken = await recorded.jobs.run(
            what,
            place | {
                "kind": "replay_take", "version": version, "signature": document.signature,
                "since": since, "max_rows": max_rows, "by": by, "kept": kept,
                "now": self._clock.wall(),
            },
            _Taken,
        )  # fmt: skip
        try:
            done = await self._run(recorded, document, wanted, taken, operation)
            quality = await recorded.jobs.run(
                what,
                place | {
                    "kind": "replay_judge", "taken": taken, "version": version, "by": by,
                    "hidden": hidden_inputs(recorded, document.signature),
                    "mature_before": self._clock.wall() - recorded.maturity,
                },
                Quality,
            )  # fmt: skip
        except BaseException:
            with contextlib.suppress(HotswapError):
                await recorded.jobs.run(what, {"kind": "replay_drop", "taken": taken}, bool)
            raise
        rows, alike = taken.planned.rows, quality.agreement
        return Replay(
            model=model,
            version=version,
            rows=rows,
            requests=taken.planned.requests,
            errors=done.errors,
            agreement=alike.same / alike.n if alike is not None and alike.n else None,
            ms_per_row=1000 * done.seconds / rows,
            seconds=self._clock.monotonic() - began,
            quality=_noted(quality, version, rows, done.errors),
            left_out=taken.planned.left_out,
            problems=done.problems,
        )

    async def _run(
        self,
        recorded: Recorded,
        document: ModelDocument,
        wanted: VersionDocument,
        taken: _Taken,
        operation: str,
    ) -> _Done:
        """The version, in a process that ends with it, and at once when it says nothing for long."""
        record = wanted.record
        limit = self._limit(record.settings)
        request = {
            "kind": "replay_run",
            "taken": taken,
            "model": record.model,
            "version": record.version,
            "artifact": record.artifact,
            "settings": record.settings,
            "public": document.signature,
            "roots": self._policy.roots,
            "trusted": True,  # as was checked
            "allow_unvalidated": self._policy.allow_unvalidated,
        }
        runner = recorded.models()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit) as patience:
                tell = self._progress(operation)

                def progress(rows: int, total: int) -> None:
                    patience.reschedule(loop.time() + limit)
                    tell(rows, total)

                what = f"running {record.model}/{record.version}"
                return await runner.run(what, request, _Done, progress)
        except TimeoutError:
            raise LoadError(
                f"{record.model}/{record.version} was ended: nothing came from it for {limit:g} s"
            ) from None
        finally:
            await runner.close()

    def _limit(self, settings: VersionSettings) -> float:
        default = settings.load_seconds == VersionSettings().load_seconds
        loading = self._policy.load_seconds if default else settings.load_seconds
        return max(loading, settings.hang_seconds) + _SLACK

    def _progress(self, operation: str) -> Progress:
        """How far it is, as the operation's reason."""
        tasks: set[asyncio.Task[Any]] = set()

        def progress(rows: int, total: int) -> None:
            said = f"{rows:,} of {total:,} rows are run"
            task = asyncio.ensure_future(
                self._operations.update(operation, save=False, reason=said)
            )
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return progress


def _noted(quality: Quality, version: str, rows: int, errors: int) -> Quality:
    """The report says what it is of, wherever it is read."""
    said = (
        f"A replay: {version} was run over {rows:,} recorded rows, without traffic, and gave no "
        f"answer to {errors:,} of them.",
        "Latencies are not alike: who answered was asked by one request, in the server; the replayed "
        "version by batches, and its share of a batch is shown.",
    )
    return msgspec.structs.replace(quality, notes=(*said, *quality.notes))


__all__ = ["MAX_ROWS", "Replaying"]
