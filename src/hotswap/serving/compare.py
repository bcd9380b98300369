"""Whether two versions gave the same answer to the same rows, and by how much not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from hotswap.core.windows import PairCounts
from hotswap.ports import Array

RELATIVE: Final = 1e-6
LABELS: Final = 400
_LABEL_BYTES: Final = 64
_SUM: Final = 1e-3
_FEW: Final = 32
_MOST: Final = sys.float_info.max


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
    return bool((array >= 0).all() and (np.abs(sums - 1.0) < _SUM).all())


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
        elif len(ours) == 1 and ours.size <= _FEW:
            by_class = _few(found, ours, theirs) or by_class
        else:
            by_class = _many(found, ours, theirs) or by_class
    if not found.labels:
        found.labels = by_class
    return found


def _few(found: Comparison, ours: Array, theirs: Array) -> list[tuple[str, str]]:
    """One row of few numbers, as most requests are: plain floats are ten times as fast."""
    one, other = ours.reshape(-1).tolist(), theirs.reshape(-1).tolist()
    apart = [abs(x - y) for x, y in zip(one, other, strict=True)]
    found.difference += sum(apart)
    found.largest = max(found.largest, *apart) if apart else found.largest
    if ours.ndim == 2 and len(one) > 1 and _is_row(one) and _is_row(other):
        classes = one.index(max(one)), other.index(max(other))
        found.agree = found.agree and classes[0] == classes[1]
        return [(str(classes[0]), str(classes[1]))]
    near = all(
        d <= RELATIVE * max(abs(x), abs(y)) for d, x, y in zip(apart, one, other, strict=True)
    )
    found.agree = found.agree and near
    return []


def _is_row(row: list[float]) -> bool:
    return min(row) >= 0 and abs(sum(row) - 1.0) < _SUM


def _many(found: Comparison, ours: Array, theirs: Array) -> list[tuple[str, str]]:
    one, other = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(over="ignore"):
        apart = np.abs(one - other)
        found.difference += float(apart.sum())
    found.largest = max(found.largest, float(apart.max(initial=0.0)))
    if is_probability(one) and is_probability(other):
        classes, others = one.argmax(axis=1), other.argmax(axis=1)
        found.agree = found.agree and bool((classes == others).all())
        return _pairs(classes, others)
    near = apart <= RELATIVE * np.maximum(np.abs(one), np.abs(other))
    found.agree = found.agree and bool(near.all())
    return []


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
    pairs.difference = min(_MOST, pairs.difference + comparison.difference)
    pairs.largest = min(_MOST, max(pairs.largest, comparison.largest))
    confusion = pairs.confusion
    for ours, theirs in comparison.labels:
        label = f"{ours}|{theirs}"
        if label in confusion or len(confusion) < LABELS:
            confusion[label] = confusion.get(label, 0) + 1


__all__ = ["Comparison", "compare", "count", "is_probability"]
