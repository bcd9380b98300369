"""Formula F7: is the candidate's ranking worse? Blocks of one positive and the next negatives.

The AUC is the chance that a positive scores above a negative, a tie counting half. A block is one
positive label and the next m negative ones, in the order in which the requests arrived; its
difference D = mean over its negatives of h(stable) − h(candidate), with h = 1 where the positive
scores above the negative and ½ where it ties, has the mean AUC of stable − AUC of the candidate.
So `differences` tests it (positive is worse), as long as scores are alike within a block.

- Rows are fed in *arrival order of their requests*, whenever their labels came: then neither which
  rows form a block nor when it ends depends on a score.
- m is the classes' ratio, 1 to 50: negatives to a positive among the first rows, until there were
  20 positives or 1,000 negatives. It is frozen from then on, and those rows are counted in no
  block: what was chosen by looking at data must not be judged by the same.
- A positive that arrives while a block is open waits (up to `WAITING` of them, then it is dropped
  and counted); a negative that arrives while none is open is dropped.
- A score that is missing (``None`` or not a number) loses every comparison: the candidate's is then
  the worst, stable's the best for the candidate, and both missing is a tie.

A block's D is a multiple of 1/2m. Off the exact buckets it moves to one of the two around it without
bias, by a hash of the block's number: the same rows make the same counts, however they are batched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from hotswap.stats import differences

#: A row: whether its label is positive, stable's score, the candidate's score.
Row = tuple[bool, float | None, float | None]
Scores = tuple[float | None, float | None]

#: Positives that may wait for a block.
WAITING: Final = 1000
#: The most negatives in a block.
MOST: Final = 50
_POSITIVES: Final = 20  # whichever comes first freezes the ratio ...
_NEGATIVES: Final = _POSITIVES * MOST  # ... or so many negatives: it is at its most
_LARGEST: Final = 1.7976931348623157e308  # JSON has no infinity


class Blocks(NamedTuple):
    """Blocks so far, the open one, and who waits; plain numbers, to be stored as they are.

    ``negatives_a_block``: m, 0 until it is frozen. ``first``: positives and negatives of the rows
    that freeze it. ``open``: the open block's positive (stable's score, the candidate's), or
    nothing. ``taken``: its negatives so far; ``halves``: 2 Σ (h(stable) − h(candidate)) over
    these. ``waiting``: positives whose turn comes. ``dropped``: positives and negatives that came
    into no block. ``counts``: finished blocks by bucket of `differences`.
    """

    negatives_a_block: int = 0
    first: tuple[int, int] = (0, 0)
    open: tuple[Scores, ...] = ()
    taken: int = 0
    halves: int = 0
    waiting: tuple[Scores, ...] = ()
    dropped: tuple[int, int] = (0, 0)
    blocks: int = 0
    counts: Mapping[int, int] = {}


def feed(blocks: Blocks, rows: Iterable[Row]) -> Blocks:
    """The blocks after more rows, in their requests' order of arrival; ``blocks`` stays as it is.

    How the rows are cut into calls changes nothing. Formula F7 (see the module).

    >>> rows = [(True, 0.9, 0.2), (False, 0.1, 0.3)] * 30
    >>> state = feed(Blocks(), rows)
    >>> state.negatives_a_block, dict(state.counts)
    (1, {500: 10})
    >>> feed(feed(Blocks(), rows[:33]), rows[33:]) == state
    True
    """
    building = _Building(blocks)
    for positive, stable, candidate in rows:
        scores = _number(stable), _number(candidate)
        if building.ratio == 0:
            building.count(positive)
        elif positive:
            building.add_positive(scores)
        else:
            building.add_negative(scores)
    return building.done()


def auc(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> float:
    """The exact AUC of these scores, ties counting half, to show; NaN without one of the classes.

    By ranks (Mann & Whitney 1947). A score that is not a number loses every comparison, as in a
    block, on either side: the AUC is then that much lower.

    >>> auc([0.9, 0.4], [0.1, 0.4]), auc([0.9, math.nan], [0.1])
    (0.875, 0.5)
    """
    above = np.asarray(positives, np.float64).ravel()
    below = np.asarray(negatives, np.float64).ravel()
    pairs = above.size * below.size
    if not pairs:
        return math.nan
    below = np.sort(below[~np.isnan(below)])
    above = above[~np.isnan(above)]
    won = np.searchsorted(below, above, side="left").sum(dtype=np.float64)
    tied = np.searchsorted(below, above, side="right").sum(dtype=np.float64)
    return float((won + tied) / (2.0 * pairs))


class _Building:
    """`Blocks` while rows are added, so that a row costs no copy of what there is."""

    def __init__(self, blocks: Blocks) -> None:
        self.ratio = blocks.negatives_a_block
        self.positives, self.negatives = blocks.first
        self.open = tuple(blocks.open)
        self.taken, self.halves = blocks.taken, blocks.halves
        self.waiting = list(blocks.waiting)
        self.turn = 0  # of those waiting, how many have had theirs
        self.dropped = list(blocks.dropped)
        self.blocks = blocks.blocks
        self.counts = dict(blocks.counts)

    def count(self, positive: bool) -> None:
        """One of the rows that freeze the ratio."""
        if positive:
            self.positives += 1
        else:
            self.negatives += 1
        if self.positives >= _POSITIVES or self.negatives >= _NEGATIVES:
            ratio = round(self.negatives / max(1, self.positives))
            self.ratio = min(MOST, max(1, ratio))

    def add_positive(self, scores: Scores) -> None:
        """Opens a block, or waits for the open one's end."""
        if not self.open:
            self.open = (scores,)
        elif len(self.waiting) - self.turn < WAITING:
            self.waiting.append(scores)
        else:
            self.dropped[0] += 1

    def add_negative(self, scores: Scores) -> None:
        """Goes into the open block, and may close it."""
        if not self.open:
            self.dropped[1] += 1
            return
        stable, candidate = self.open[0]
        self.halves += _halves(stable, scores[0]) - _halves(candidate, scores[1])
        self.taken += 1
        if self.taken == self.ratio:
            self.close()

    def close(self) -> None:
        """Counts the block, and opens the next if a positive waits."""
        d = self.halves / (2 * self.ratio)
        at = differences.bucket(d, chance=_chance(self.blocks))
        self.counts[at] = self.counts.get(at, 0) + 1
        self.blocks += 1
        self.taken = self.halves = 0
        self.open = ()
        if self.turn < len(self.waiting):
            self.open = (self.waiting[self.turn],)
            self.turn += 1

    def done(self) -> Blocks:
        """What there is now."""
        return Blocks(
            self.ratio,
            (self.positives, self.negatives),
            self.open,
            self.taken,
            self.halves,
            tuple(self.waiting[self.turn :]),
            (self.dropped[0], self.dropped[1]),
            self.blocks,
            {at: self.counts[at] for at in sorted(self.counts)},
        )


def _halves(positive: float | None, negative: float | None) -> int:
    """2 h: what the positive gets from this negative, in halves; nothing if a score is missing."""
    if positive is None or negative is None or positive < negative:
        return 0
    return 2 if positive > negative else 1


def _number(score: float | None) -> float | None:
    if score is None or score != score:
        return None
    return min(_LARGEST, max(-_LARGEST, float(score)))


def _chance(number: int) -> float:
    """A number in [0, 1) for each block, unlike its neighbours': splitmix64 (Steele et al. 2014)."""
    mask = (1 << 64) - 1
    z = (number + 1) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)
