"""Which class each probability is of: read off what is predicted where it is the greatest."""

from __future__ import annotations

from collections import Counter

import numpy as np

from hotswap.records.quality_metrics import classes_of, text
from hotswap.records.quality_rows import Answered, Array, Rows


def names(rows: Rows) -> tuple[str, ...]:
    """The classes of the probabilities, in their order; empty without any.

    Classifiers keep their classes sorted; where that does not fit what they predict, the
    predictions decide, and a class that was never the greatest is taken to be its place's number.
    """
    sides = [side for side in rows.sides if side.chances is not None]
    sizes = {0 if side.chances is None else side.chances.shape[1] for side in sides}
    if len(sizes) != 1:
        return ()
    size = sizes.pop()
    seen = _seen(sides, size)
    known = in_order({text(each) for each in rows.labels} | _predicted(sides))
    if len(known) == size and all(known[place] == name for place, name in seen.items()):
        return tuple(known)
    free = [each for each in known if each not in seen.values()]
    empty = [place for place in range(size) if place not in seen]
    if seen and len(free) == len(empty):
        seen |= dict(zip(empty, free, strict=True))
    taken = set(seen.values())
    return tuple(
        seen.get(place, f"class {place}" if str(place) in taken else str(place))
        for place in range(size)
    )


def places(rows: Rows) -> Array:
    """Each label's place among ``rows.classes``, −1 for one that has none."""
    where = {name: place for place, name in enumerate(rows.classes)}
    return np.array([where.get(text(each), -1) for each in rows.labels], dtype=np.int64)


def in_order(classes: set[str]) -> list[str]:
    """Numbers by size, texts by letters.

    >>> in_order({"10", "9"}), in_order({"b", "10", "9"})
    (['9', '10'], ['10', '9', 'b'])
    """
    try:
        return sorted(classes, key=float)
    except ValueError:
        return sorted(classes)


def _predicted(sides: list[Answered]) -> set[str]:
    found: set[str] = set()
    for side in sides:
        found |= set(classes_of(side, "multiclass").tolist())
    return found - {""}


def _seen(sides: list[Answered], size: int) -> dict[int, str]:
    """Place -> what is mostly predicted where its probability is the greatest."""
    counts: dict[int, Counter[str]] = {}
    for side in sides:
        if side.chances is None:
            continue
        best = np.nan_to_num(side.chances, nan=-1.0).argmax(axis=1)
        gone = np.isnan(side.chances).any(axis=1)
        for place, name in zip(
            best[~gone].tolist(), classes_of(side, "multiclass")[~gone].tolist(), strict=True
        ):
            if name:
                counts.setdefault(place, Counter())[name] += 1
    return {place: count.most_common(1)[0][0] for place, count in counts.items() if place < size}


__all__ = ["in_order", "names", "places"]
