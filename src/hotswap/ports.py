"""The seams: what an adapter must offer, as protocols of six methods at most."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hotswap.core.routing import RouteTable
from hotswap.core.signature import Signature
from hotswap.core.spec import Artifact, VersionRecord, VersionSettings
from hotswap.core.stats import ModelStats

Array = np.ndarray[Any, np.dtype[Any]]


@runtime_checkable
class Executor(Protocol):
    """One loaded version. Used from one thread at a time.

    ``signature`` is what the artifact tells of itself (outputs may be empty: they are then
    learned at validation). ``predict`` is given one array a named input, all with the same
    number of rows (``BYTES`` as object arrays of `bytes`; for a ``table`` signature one 1-d
    array a column), and returns one array for each of ``outputs`` (all outputs if empty), first
    dimension the rows. It may raise anything: what it raises is the model's failure. ``close``
    lets go of what it holds, and may be called twice. An executor that also has a method
    ``mark_shadow(shadow: bool)`` is told, before the calls that it applies to, that nobody waits
    for their answers: they are only compared. A call never mixes the two kinds.
    """

    signature: Signature

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]: ...

    def close(self) -> None: ...


@runtime_checkable
class Runtime(Protocol):
    """One way to run artifacts: scikit-learn, ONNX, …

    ``name`` is what ``version.yaml`` and the API call it; ``platform`` is what the protocol's
    model metadata says; ``extra`` the pip extra that installs it.
    """

    name: str
    platform: str
    extra: str

    def entry(self, folder: Path) -> str | None:
        """The file in ``folder`` ("." for the folder itself) that this runtime would load, or None.

        Looks at names and at most the first bytes; imports nothing heavy.
        """
        ...

    def runs_code(self, folder: Path, entry: str) -> str | None:
        """Why loading this artifact can run code that it carries, as a sentence; None if it cannot."""
        ...

    def preload(self) -> None:
        """Import what `load` will need, and run nothing: start no thread, touch no device.

        Called in the nursery, before hosts are forked from it (where they are spawned, in each).
        """
        ...

    def load(self, artifact: Artifact, settings: VersionSettings) -> Executor:
        """Load it. Raises `LoadError`, `MissingDependency`, or whatever the library raises."""
        ...


class Lease(Protocol):
    """One request's hold on a route table's revision: it will be answered by ``version`` alone.

    Taken by `DataPlane.lease`; `release` must be called exactly once, in a ``finally``. While a
    split is in force, `predict` assigns the arm: only after it ``version`` is the one that
    answered, and ``fallback`` why the baseline answered for a candidate (error, timeout, lost,
    overload, invalid, breaker or unavailable; None if it did not).
    """

    model: str
    version: str
    signature: Signature
    fallback: str | None

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        request_id: str,
    ) -> dict[str, Array]:
        """Run it. ``inputs`` as `Executor.predict` has them, by the *public* signature's names
        and datatypes; ``outputs`` empty for all; ``deadline`` on the monotonic clock, seconds.

        Raises `Overloaded`, `Unavailable`, `DeadlineExceeded`, `OutOfMemory`, or `ModelFailed`:
        as `InvalidOutput` for what is no answer, `HostLost` if the model's process died on it.
        """
        ...

    def release(self) -> None: ...


class DataPlane(Protocol):
    """What the HTTP front end needs: the worker's plane, or the embedded engine's."""

    def lease(
        self, model: str, version: str | None, key: bytes | None, *, arm: str | None = None
    ) -> Lease:
        """Choose a version and hold it. Synchronous and without I/O: called after the whole body
        is in, in the same loop step as the request is decoded.

        ``version`` None: the active one, or what the running split assigns. ``key`` keeps a
        caller on one side of a rollout. ``arm``, without a version: "stable", the stable version
        whatever split there is; "baseline" or "candidate", that arm of the running split. Neither
        tosses a coin or is counted as evidence.
        Raises `NotFound` for an unknown model or version or an arm of no split, `Unavailable` if
        it is not warm (a version that was named is then loaded).
        """
        ...

    def table(self, model: str) -> RouteTable:
        """The model's present route table. Raises `NotFound`."""
        ...

    def models(self) -> list[str]:
        """Every model's name, sorted."""
        ...

    def ready(self) -> bool:
        """Whether this process should be sent requests."""
        ...

    def stats(self) -> list[ModelStats]:
        """The merged counters of all workers, one entry a (model, version, role)."""
        ...


class Store(Protocol):
    """Where control keeps what must outlive it. Compare-and-set by ``generation``."""

    async def open(self) -> None:
        """Connect and migrate. Raises `StoreError` with one clear line."""
        ...

    async def close(self) -> None: ...

    async def get(self, kind: str, key: str) -> tuple[bytes, int] | None:
        """The value and its generation, or None."""
        ...

    async def put(self, kind: str, key: str, value: bytes, generation: int | None = None) -> int:
        """Write; the new generation. ``generation`` expected: 0 for 'must be new', None for any.

        Raises `Conflict` if another write came first.
        """
        ...

    async def delete(self, kind: str, key: str) -> None: ...

    async def scan(self, kind: str) -> list[tuple[str, bytes, int]]:
        """Every (key, value, generation) of a kind, by key."""
        ...


class Found(Protocol):
    """A version that a source has seen complete and unchanging."""

    @property
    def model(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def path(self) -> Path: ...


class VersionSource(Protocol):
    """Where versions come from."""

    def watch(self) -> AsyncIterator[Sequence[Found]]:
        """All that is complete now: at once, and again each time that changes."""
        ...


class MetricSource(Protocol):
    """Where a rollout's guardrail can read a number that hotswap does not count itself."""

    async def read(self, query: str) -> float | None:
        """The query's one number now; None if it gives no data or none that is a number.

        Raises `MetricsUnavailable` if the source cannot be asked, `BadInput` if the query is
        wrong or gives several numbers.
        """
        ...

    async def close(self) -> None: ...


class Clock(Protocol):
    """Time as a port. ``monotonic`` for durations, ``wall`` (Unix time) for display only."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


__all__ = [
    "Array",
    "Clock",
    "DataPlane",
    "Executor",
    "Found",
    "Lease",
    "MetricSource",
    "Runtime",
    "Store",
    "VersionRecord",
    "VersionSource",
]
