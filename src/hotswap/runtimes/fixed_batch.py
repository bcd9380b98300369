"""Running a program that was saved for a fixed number of rows on any number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hotswap.ports import Array

Call = Callable[[Mapping[str, Array]], dict[str, Array]]


def in_batches(call: Call, inputs: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """``call`` on ``batch`` rows at a time; the last ones are filled up with the last row.

    >>> def double(rows):
    ...     assert len(rows["x"]) == 2
    ...     return {"y": rows["x"] * 2}
    >>> in_batches(double, {"x": np.array([1, 2, 3])}, 2)
    {'y': array([2, 4, 6])}
    """
    count = len(next(iter(inputs.values())))
    parts = [
        call({name: _filled(array[at : at + batch], batch) for name, array in inputs.items()})
        for at in range(0, count, batch)
    ]
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def _filled(array: Array, batch: int) -> Array:
    if len(array) == batch:
        return array
    return np.concatenate([array, np.repeat(array[-1:], batch - len(array), axis=0)])
