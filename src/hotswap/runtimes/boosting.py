"""What the boosting libraries' models have in common: outputs after scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from hotswap.core.signature import Signature, TensorSpec
from hotswap.ports import Array
from hotswap.runtimes.frames import wanted
from hotswap.runtimes.signatures import tensor

Task = Literal["binary", "multiclass", "value"]
"""What the raw numbers are: the chance of class 1; one chance a class; the answer itself."""

_PLACEHOLDERS: Final = ("Column_", "f")
"""What the libraries call columns that have no name: ``Column_0``, ``f0``."""


def signature(task: Task, width: int, classes: int, names: Sequence[str]) -> Signature:
    """One FP64 ``input`` of ``width`` columns; INT64 labels and FP64 probabilities, or values.

    ``classes`` is the number of classes, or, for values, of values a row.
    """
    if task == "value":
        shape = (-1,) if classes <= 1 else (-1, classes)
        outputs = [TensorSpec("predict", "FP64", shape)]
    else:
        count = 2 if task == "binary" else classes
        outputs = [
            TensorSpec("predict", "INT64", (-1,)),
            TensorSpec("predict_proba", "FP64", (-1, count)),
        ]
    return tensor("FP64", (width,), outputs, _real(names, width))


def answers(
    task: Task, raw: Array, signature: Signature, outputs: Sequence[str]
) -> dict[str, Array]:
    """The wanted outputs from the library's raw numbers, ``(n,)`` or ``(n, classes)``."""
    found: dict[str, Array] = {}
    for spec in wanted(signature, outputs):
        if task == "value":
            found[spec.name] = np.asarray(raw, np.float64).reshape(len(raw), *spec.shape[1:])
        elif spec.name == "predict":
            labels = raw > 0.5 if task == "binary" else raw.argmax(axis=1)
            found[spec.name] = labels.astype(np.int64)
        elif task == "binary":
            found[spec.name] = np.stack([1.0 - raw, raw], axis=1).astype(np.float64)
        else:
            found[spec.name] = raw.astype(np.float64)
    return found


def rows_of(array: Array, width: int) -> Array:
    """The array, if it has two dimensions and ``width`` columns. Raises ValueError else."""
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"the model takes rows of {width} values, not {list(array.shape)}")
    return array


def _real(names: Sequence[str], width: int) -> tuple[str, ...]:
    """The names, if they are as many as columns and not the library's own placeholders."""
    if len(names) != width:
        return ()
    for prefix in _PLACEHOLDERS:
        if all(name == f"{prefix}{index}" for index, name in enumerate(names)):
            return ()
    return tuple(names)
