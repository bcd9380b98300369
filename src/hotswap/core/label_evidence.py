"""What labels said of an attempt so far: counters that add, and what was frozen to make them. Pure.

A request is counted once, in the cohort of its arrival, when its time for a label is over: never
because of what the label or the answers were. Losses lie in [0, 1], differences in [−1, 1], both in
buckets of `hotswap.stats.differences`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:  # else whoever only reads evidence would wait for numpy
    from hotswap.stats.auc import Blocks

#: Losses by which a row is judged. ``absolute`` and ``squared`` are in units of a frozen scale.
LOSSES: Final = ("accuracy", "log_loss", "brier", "absolute", "squared", "reward")


class LabelStage(msgspec.Struct, frozen=True):
    """One stage. ``weight`` of `hotswap.core.routing.WHOLE`. ``pairs``: loss -> differences of both
    versions' losses on the same rows, by bucket; ``sums``, to be shown only: loss -> (stable's,
    candidate's, rows). ``stable`` and ``candidate``: loss -> losses of
    requests by assigned arm, where one version was asked. ``expected``: rows (stable's,
    candidate's) that could have had a label, ``labelled``: those that had one.
    """

    number: int
    weight: int
    pairs: dict[str, dict[int, int]] = {}
    sums: dict[str, tuple[float, float, int]] = {}
    stable: dict[str, dict[int, int]] = {}
    candidate: dict[str, dict[int, int]] = {}
    expected: tuple[int, int] = (0, 0)
    labelled: tuple[int, int] = (0, 0)


class Labels(msgspec.Struct, frozen=True):
    """All of it. ``until``: Unix time up to whose arrivals everything is counted.

    ``scales``, ``means``: of each loss, frozen; ``low``, ``high``: of rewards. ``first``: stable's
    losses that will freeze them, and are counted nowhere. ``blocks``: of the ranking, as
    `hotswap.stats.auc.Blocks`. ``ambiguous``: labelled rows whose id several requests carry;
    ``unmatched``: rows whose label no probability belongs to. ``cohorts``: how often it was counted.
    ``problem``: why nothing could be counted last, "" if it could.
    """

    until: float = 0.0
    stages: dict[int, LabelStage] = {}
    scales: dict[str, float] = {}
    means: dict[str, float] = {}
    low: float = 0.0
    high: float = 0.0
    first: dict[str, tuple[float, ...]] = {}
    blocks: tuple[Any, ...] = ()
    ambiguous: int = 0
    unmatched: int = 0
    cohorts: int = 0
    problem: str = ""

    def differences(self, loss: str) -> dict[int, int]:
        """Of every stage: pairs toss no coin, so that they may be added up."""
        return added(stage.pairs.get(loss, {}) for stage in self.stages.values())

    def ranking(self) -> Blocks:
        """The blocks so far."""
        return blocks_of(self.blocks)

    @property
    def labelled(self) -> int:
        """Rows that had a label in time."""
        return sum(sum(stage.labelled) for stage in self.stages.values())

    @property
    def expected(self) -> int:
        """Rows that could have had one."""
        return sum(sum(stage.expected) for stage in self.stages.values())


class Cohort(msgspec.Struct, frozen=True):
    """What is asked: arrivals from ``since`` to before ``until`` (Unix time) of one test.

    ``keys``: losses as `hotswap.core.label_metrics.needed` names them. ``weights``: the candidate's
    weight by stage; ``paired``: the stages in which both versions are asked. Records of the other
    version elsewhere are of failures alone, and judge nothing.
    """

    test: str
    candidate: str
    since: float
    until: float
    maturity: float
    keys: tuple[str, ...]
    weights: dict[int, int]
    paired: tuple[int, ...] = ()


def added(counts: Any) -> dict[int, int]:
    """Histograms together.

    >>> added([{1: 2}, {1: 1, 3: 4}])
    {1: 3, 3: 4}
    """
    total: dict[int, int] = {}
    for each in counts:
        for at, count in each.items():
            total[at] = total.get(at, 0) + count
    return total


def blocks_of(flat: Sequence[Any]) -> Blocks:
    """`Blocks` from what is stored of it: keys are numbers again, sequences tuples."""
    from hotswap.stats.auc import Blocks

    if not flat:
        return Blocks()
    ratio, first, open_, taken, halves, waiting, dropped, blocks, counts = flat
    return Blocks(
        ratio,
        (first[0], first[1]),
        tuple((each[0], each[1]) for each in open_),
        taken,
        halves,
        tuple((each[0], each[1]) for each in waiting),
        (dropped[0], dropped[1]),
        blocks,
        {int(at): count for at, count in counts.items()},
    )


def flat(blocks: Blocks) -> tuple[Any, ...]:
    """`Blocks` as plain values, for the store."""
    counts: Mapping[int, int] = blocks.counts
    return (*blocks[:-1], {str(at): count for at, count in counts.items()})


__all__ = ["LOSSES", "Cohort", "LabelStage", "Labels", "added", "blocks_of", "flat"]
