"""Whether two versions gave the same answer to the same rows, and by how much not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from hotswap.core.windows import PairCounts
from hotswap.ports import Array

RELATIVE: Final = 1e-6
LABELS: Final = 400
_LABEL_BYTES: Final = 64


class Comparison(msgspec.Struct):
    """Two answers to one request. ``labels``: (baseline's, candidate's) of each row.

    ``difference`` is the sum of the absolute differences of numbers, ``largest`` the greatest.
    """

    agree: bool = True
    difference: float = 0.0
    largest: float = 0.0
    labels: list[tuple[str, str]] = []


def is_probability(array: Array) -> bool:
    """Whether each row is a distribution over two classes or more."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind != "f" or not array.size:
        return False
    sums = array.sum(axis=1, dtype=np.float64)
    return bool((array >= 0).all() and (np.abs(sums - 1.0) < 1e-3).all())


def compare(baseline: Mapping[str, Array], candidate: Mapping[str, Array]) -> Comparison:
    """Labels must be equal, numbers within `RELATIVE`, probabilities have the same greatest class.

    Both are valid answers to the same request: the same outputs, one entry a row.
    """
    found = Comparison()
    by_class: list[tuple[str, str]] = []
    for name, ours in baseline.items():
        theirs = candidate.get(name)
        if theirs is None or theirs.shape != ours.shape:
            found.agree = False
        elif ours.dtype.kind != "f":
            found.agree = found.agree and bool((ours == theirs).all())
            if not found.labels and ours.size == len(ours):
                found.labels = _pairs(ours.reshape(-1), theirs.reshape(-1))
        else:
            _numbers(found, ours, theirs)
            if is_probability(ours) and is_probability(theirs):
                classes, other = ours.argmax(axis=1), theirs.argmax(axis=1)
                found.agree = found.agree and bool((classes == other).all())
                by_class = by_class or _pairs(classes, other)
            else:
                scale = np.maximum(np.abs(ours), np.abs(theirs))
                near = np.abs(ours - theirs) <= RELATIVE * scale
                found.agree = found.agree and bool(near.all())
    if not found.labels:
        found.labels = by_class
    return found


def _numbers(found: Comparison, ours: Array, theirs: Array) -> None:
    if ours.size:
        apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        found.difference += float(apart.sum())
        found.largest = max(found.largest, float(apart.max()))


def _pairs(ours: Array, theirs: Array) -> list[tuple[str, str]]:
    return [
        (_label(one), _label(other))
        for one, other in zip(ours.tolist(), theirs.tolist(), strict=True)
    ]


def _label(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text[:_LABEL_BYTES]


def count(pairs: PairCounts, comparison: Comparison) -> None:
    """Add a request to which both gave a valid answer."""
    pairs.both += 1
    pairs.agree += comparison.agree
    pairs.difference += comparison.difference
    pairs.largest = max(pairs.largest, comparison.largest)
    confusion = pairs.confusion
    for ours, theirs in comparison.labels:
        label = f"{ours}|{theirs}"
        if label in confusion or len(confusion) < LABELS:
            confusion[label] = confusion.get(label, 0) + 1


__all__ = ["Comparison", "compare", "count", "is_probability"]
