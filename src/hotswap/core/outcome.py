"""What became of a request's first attempt on its assigned arm. One function, for both arms.

Nothing that happens later (another attempt, an answer by the baseline, a cancelled client)
changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature

Outcome = Literal["ok", "error", "timeout", "invalid"]

#: The outcome of each failure of an attempt, by the name of the exception that says so.
OF_EXCEPTION: Final[Mapping[str, Outcome]] = {
    "DeadlineExceeded": "timeout",
    "InvalidOutput": "invalid",
}

Array = np.ndarray[Any, np.dtype[Any]]


def of_exception(exc: BaseException) -> Outcome:
    """The outcome of an attempt that raised."""
    return OF_EXCEPTION.get(type(exc).__name__, "error")


def of_answer(ns: int, budget_ns: int, fault: str | None) -> Outcome:
    """The outcome of an attempt that was answered after ``ns``; ``fault`` is of `fault`.

    >>> of_answer(5, 10, None), of_answer(11, 10, None), of_answer(5, 10, "NaN")
    ('ok', 'timeout', 'invalid')
    """
    if ns > budget_ns:
        return "timeout"
    return "ok" if fault is None else "invalid"


def fault(
    outputs: Mapping[str, Array], wanted: tuple[str, ...], rows: int, signature: Signature
) -> str | None:
    """Why these outputs are no valid answer, in a few words; None if they are one.

    They must be all that was asked for (``wanted``, or every output of the signature), one entry
    a row, of the signature's datatypes and shapes, and finite.

    >>> signature = Signature((), ())
    >>> fault({"y": np.array([1.0, float("nan")])}, (), 2, signature)
    "output 'y' is not finite"
    """
    specs = {spec.name: spec for spec in signature.outputs}
    for name in wanted or specs:
        if name not in outputs:
            return f"output {name!r} is missing"
    if not outputs:
        return "there is no output"
    for name, array in outputs.items():
        if not array.ndim or len(array) != rows:
            return f"output {name!r} has not one entry a row"
        spec = specs.get(name)
        if spec is not None:
            if spec.datatype and array.dtype != NUMPY_OF[spec.datatype]:
                return f"output {name!r} is {array.dtype}, not {spec.datatype}"
            if not _fits(array.shape[1:], spec.shape[1:]):
                return f"output {name!r} has shape {list(array.shape)}, not {list(spec.shape)}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"output {name!r} is not finite"
    return None


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if shape == wanted:
        return True
    return len(shape) == len(wanted) and all(
        want in (-1, got) for got, want in zip(shape, wanted, strict=True)
    )
