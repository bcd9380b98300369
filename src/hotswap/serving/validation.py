"""Loading is validating: a version is READY only after it has answered, correctly and steadily."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from hotswap.core.adaptation import adapt
from hotswap.core.datatypes import datatype_of
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import LoadError
from hotswap.ports import Array, Executor
from hotswap.serving.adapted import AdaptedExecutor

_BATCHES: Final = (1, 16)
_LEAST: Final = 8
_MOST_SECONDS: Final = 1.0


class Validated(msgspec.Struct, frozen=True):
    """An executor that is fit to serve, the signature it serves, and how long warming took (s)."""

    executor: Executor
    signature: Signature
    warm_seconds: float
    steady_seconds: float
    warnings: tuple[str, ...]


def validate(
    executor: Executor,
    samples: Mapping[str, Array] | None,
    public: Signature | None,
    *,
    finite: bool,
    allow_unvalidated: bool,
) -> Validated:
    """Run the samples, learn the outputs if the artifact does not tell, adapt, warm up.

    ``samples`` are by the version's own input names; None if nothing tells what it takes.
    Raises `LoadError`, `SignatureMismatch`, or whatever the version itself raises.
    """
    own = executor.signature
    if samples is None:
        return _unvalidated(executor, own, public, allow_unvalidated)
    rows = min(len(array) for array in samples.values())
    outputs = executor.predict(samples, ())
    _check(outputs, rows, finite=finite)
    own = _learn(own, outputs)
    first = {name: array[:1] for name, array in samples.items()}
    _check_alone(executor.predict(first, ()), outputs)
    warnings: list[str] = []
    if not finite and not _finite(outputs):
        warnings.append("the samples gave outputs that are not finite")
    serving: Executor = executor
    signature = own
    if public is not None:
        serving = AdaptedExecutor(executor, public, adapt(own, public))
        signature = public
    began = time.monotonic()
    steady = _warm(executor, samples)
    return Validated(serving, signature, time.monotonic() - began, steady, tuple(warnings))


def _unvalidated(
    executor: Executor, own: Signature, public: Signature | None, allowed: bool
) -> Validated:
    if not allowed:
        raise LoadError(
            "nothing tells what this version takes: add a signature or samples to its "
            "version.yaml, or allow unvalidated versions with --allow-unvalidated"
        )
    marked = msgspec.structs.replace(own, unvalidated=True)
    serving: Executor = executor
    if public is not None:
        # It cannot be shown that it fits; it is served under the model's names as they are.
        marked = public
    return Validated(serving, marked, 0.0, 0.0, ("unvalidated: it was never run before serving",))


def _check(outputs: Mapping[str, Array], rows: int, *, finite: bool) -> None:
    if not outputs:
        raise LoadError("the version gave no output for its samples")
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != rows:
            got = "no rows" if array.ndim == 0 else f"{array.shape[0]} rows"
            raise LoadError(f"output {name!r} has {got} for {rows} rows of samples")
    if finite and not _finite(outputs):
        raise LoadError("the samples gave outputs that are not finite")


def _finite(outputs: Mapping[str, Array]) -> bool:
    return all(np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f")


def _check_alone(alone: Mapping[str, Array], batch: Mapping[str, Array]) -> None:
    """One row run alone has one row of the shape it has in a batch."""
    for name, array in batch.items():
        single = alone.get(name)
        if single is None or single.shape != (1, *array.shape[1:]):
            got = "nothing" if single is None else f"shape {list(single.shape)}"
            raise LoadError(
                f"output {name!r} has {got} for one row alone and {list(array.shape)} in a batch"
            )


def _learn(own: Signature, outputs: Mapping[str, Array]) -> Signature:
    """The outputs as they were seen, where the artifact did not tell."""
    missing = [name for name in (spec.name for spec in own.outputs) if name not in outputs]
    if missing:
        raise LoadError(
            f"output {missing[0]!r} of the signature is not among the version's outputs"
        )
    if own.outputs and all(spec.datatype for spec in own.outputs):
        return own
    seen = tuple(
        TensorSpec(name, datatype_of(array.dtype), (-1, *array.shape[1:]))
        for name, array in outputs.items()
    )
    return msgspec.structs.replace(own, outputs=seen, learned=True)


def _warm(executor: Executor, samples: Mapping[str, Array]) -> float:
    """Call until the time of one row is steady; that time in seconds.

    Steady: the median of the last five calls is at most 1.2 times the best median so far. Some
    libraries compile, allocate or start threads on their first calls.
    """
    rows = min(len(array) for array in samples.values())
    for count in _BATCHES:
        repeat = -(-count // rows)
        batch = {n: np.concatenate([a] * repeat)[:count] for n, a in samples.items()}
        executor.predict(batch, ())
    one = {name: array[:1] for name, array in samples.items()}
    times: list[float] = []
    best = float("inf")
    began = time.monotonic()
    while time.monotonic() - began < _MOST_SECONDS:
        start = time.perf_counter()
        executor.predict(one, ())
        times.append(time.perf_counter() - start)
        if len(times) >= 5:
            recent = statistics.median(times[-5:])
            best = min(best, recent)
            if len(times) >= _LEAST and recent <= 1.2 * best:
                break
    return statistics.median(times[-5:])
