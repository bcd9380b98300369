"""Fakes that answer at once: a data plane without hosts, for tests of what stands before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hotswap.core.routing import Assigned, RouteTable, Split, VersionEntry
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.stats import ModelStats
from hotswap.errors import NotFound, Unavailable
from hotswap.ports import Array

Predict = Callable[[Mapping[str, Array], tuple[str, ...]], dict[str, Array]]


def tensor_signature(width: int = 30, datatype: str = "FP64") -> Signature:
    """A classifier's signature: ``input`` of shape ``(-1, width)``, label and probabilities."""
    return Signature(
        inputs=(TensorSpec("input", datatype, (-1, width)),),
        outputs=(
            TensorSpec("predict", "INT64", (-1,)),
            TensorSpec("predict_proba", "FP64", (-1, 2)),
        ),
    )


def table_signature() -> Signature:
    """A table of mixed types: ``age`` INT64, ``income`` FP64, ``city`` BYTES, ``member`` BOOL."""
    return Signature(
        inputs=(
            TensorSpec("age", "INT64", (-1,)),
            TensorSpec("income", "FP64", (-1,)),
            TensorSpec("city", "BYTES", (-1,)),
            TensorSpec("member", "BOOL", (-1,)),
        ),
        outputs=(TensorSpec("predict", "FP64", (-1,)),),
        kind="table",
    )


def classify(inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
    """Label 1 and probabilities (0.25, 0.75) for each row; only the outputs asked for."""
    rows = len(next(iter(inputs.values())))
    every: dict[str, Array] = {
        "predict": np.ones(rows, dtype=np.int64),
        "predict_proba": np.tile(np.array([0.25, 0.75]), (rows, 1)),
    }
    return {name: every[name] for name in outputs} if outputs else every


class FakeModel:
    """One model of a `FakePlane`; its fields may be changed between requests.

    ``predict`` makes the answer, ``error`` is raised instead of it, ``gate`` is waited for
    before it; ``not_ready`` are versions that are registered but not warm. ``split``: the running
    one; `FakeLease.predict` then answers by ``assigned`` ("baseline" or "candidate").
    """

    def __init__(
        self,
        signature: Signature | None = None,
        versions: Sequence[str] = ("v1", "v2"),
        stable: str | None = "v1",
        predict: Predict = classify,
    ) -> None:
        self.signature = signature or tensor_signature()
        self.versions = tuple(versions)
        self.stable = stable
        self.predict = predict
        self.error: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.fallback: str | None = None
        self.not_ready: set[str] = set()
        self.split: Split | None = None
        self.assigned: Assigned = "baseline"


class FakeCall:
    """What one `Lease.predict` was given."""

    def __init__(
        self,
        model: str,
        version: str,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        request_id: str,
    ) -> None:
        self.model = model
        self.version = version
        self.inputs = inputs
        self.outputs = outputs
        self.rows = rows
        self.deadline = deadline
        self.request_id = request_id


class FakeLease:
    """A lease that counts itself on its plane until it is released."""

    __slots__ = (
        "_assigned",
        "_model",
        "_plane",
        "_released",
        "fallback",
        "model",
        "signature",
        "version",
    )

    def __init__(
        self,
        plane: FakePlane,
        name: str,
        model: FakeModel,
        version: str,
        assigned: str | None = None,
    ) -> None:
        self._assigned = assigned
        self._plane = plane
        self._model = model
        self._released = False
        self.model = name
        self.version = version
        self.signature = model.signature
        self.fallback = model.fallback
        plane.held += 1

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        request_id: str,
    ) -> dict[str, Array]:
        """Answer as the model's fields say."""
        plane, model = self._plane, self._model
        self.version = self._assigned or self.version
        if plane.record:
            plane.calls.append(
                FakeCall(self.model, self.version, inputs, outputs, rows, deadline, request_id)
            )
        if model.gate is not None:
            plane.waiting += 1
            try:
                await model.gate.wait()
            except asyncio.CancelledError:
                plane.cancelled += 1
                raise
            finally:
                plane.waiting -= 1
        if model.error is not None:
            raise model.error
        return model.predict(inputs, outputs)

    def release(self) -> None:
        """Give it back; a second time is a mistake of the caller."""
        if self._released:
            raise AssertionError("a lease was released twice")
        self._released = True
        self._plane.held -= 1


class FakePlane:
    """A `hotswap.ports.DataPlane` that needs no hosts.

    ``calls`` are the predictions asked for (while ``record`` is true), ``keys`` the stickiness
    keys, ``held`` the leases not yet released, ``waiting`` those that wait at a gate,
    ``cancelled`` those cancelled there.
    """

    def __init__(
        self, models: Mapping[str, FakeModel] | None = None, *, record: bool = True
    ) -> None:
        self.fakes = dict(models) if models is not None else {"demo": FakeModel()}
        self.record = record
        self.calls: list[FakeCall] = []
        self.keys: list[bytes | None] = []
        self.held = 0
        self.waiting = 0
        self.cancelled = 0
        self.is_ready = True
        self.statistics: list[ModelStats] = []

    def lease(
        self, model: str, version: str | None, key: bytes | None, *, arm: str | None = None
    ) -> FakeLease:
        """As the port says."""
        fake = self.fakes.get(model)
        if fake is None:
            raise NotFound(f"There is no model {model!r}.")
        if self.record:
            self.keys.append(key)
        split, assigned = fake.split, None
        if arm in ("baseline", "candidate"):
            if split is None:
                raise NotFound(f"No test of the model {model!r} is running.")
            version = split.candidate if arm == "candidate" else split.baseline
        elif split is not None and arm is None and version is None:
            assigned = split.candidate if fake.assigned == "candidate" else split.baseline
        chosen = version if version is not None else fake.stable
        if chosen is None:
            raise Unavailable(f"The model {model!r} has no active version.")
        if chosen not in fake.versions:
            raise NotFound(f"The model {model!r} has no version {chosen!r}.")
        if chosen in fake.not_ready:
            raise Unavailable(f"Version {chosen!r} is not warm.")
        return FakeLease(self, model, fake, chosen, assigned)

    def table(self, model: str) -> RouteTable:
        """As the port says."""
        fake = self.fakes.get(model)
        if fake is None:
            raise NotFound(f"There is no model {model!r}.")
        entries = tuple(
            VersionEntry(
                version,
                platform="sklearn",
                state="UNAVAILABLE" if version in fake.not_ready else "READY",
                reason="not loaded" if version in fake.not_ready else "",
                runtime="sklearn",
            )
            for version in fake.versions
        )
        return RouteTable(model, 0, 1, fake.stable, fake.signature, entries, fake.split)

    def models(self) -> list[str]:
        """As the port says."""
        return sorted(self.fakes)

    def ready(self) -> bool:
        """As the port says."""
        return self.is_ready

    def stats(self) -> list[ModelStats]:
        """As the port says."""
        return self.statistics


__all__ = [
    "FakeCall",
    "FakeLease",
    "FakeModel",
    "FakePlane",
    "classify",
    "table_signature",
    "tensor_signature",
]
