"""Which weight a bandit moves to: Thompson sampling's own probability, on a fixed grid. Pure."""

from __future__ import annotations

from typing import Final

from hotswap.core import measures
from hotswap.core.evidence import Evidence
from hotswap.core.plan import Adapt
from hotswap.core.rollout import Rollout, Status
from hotswap.core.routing import WHOLE
from hotswap.stats import rate, thompson

#: Seconds between two moves, and how many requests both arms must have had since.
EVERY: Final = 10.0
LEAST: Final = 100


def moved_weight(rollout: Rollout, status: Status, step: Adapt) -> int | None:
    """The weight to move to, None to stay.

    The weight is the posterior probability that the candidate is better, clipped to the step's
    bounds and moved to a grid: each value is a stage of its own, whose probability is known.
    """
    if status.step_elapsed - status.adapted < EVERY:
        return None
    stage = rollout.evidence.stage(status.stage)
    if stage is None or stage.candidate.requests + stage.stable.requests < LEAST:
        return None
    stable, ours = _successes(step.metric, rollout.evidence)
    if not sum(stable) or not sum(ours):
        return None
    share = thompson.propensity(
        *stable, *ours, low=step.low / WHOLE, high=step.high / WHOLE, grid=0.05
    )
    weight = round(share * WHOLE)
    now = status.exposure.weight if status.exposure is not None else 0
    return weight if weight != now else None


def _successes(metric: str, evidence: Evidence) -> tuple[tuple[int, int], tuple[int, int]]:
    """(successes, failures) of stable and of the candidate, each stage by its own rates: an arm's
    share changes with time, and so may everybody's rate.
    """
    if metric in measures.COUNT:
        cells = measures.rate_cells(evidence, measures.COUNT[metric])
        totals = [
            (stage.stable.requests, stage.candidate.requests)
            for stage in measures.unpaired(evidence)
        ]
    else:
        quantile = "p95" if metric == "latency" else metric.removeprefix("latency_")
        cells = measures.exceeding(evidence, quantile)
        totals = [
            (sum(cell.stable.values()), sum(cell.candidate.values()))
            for cell in measures.latency_cells(evidence)
        ]
    return _sums(cells, totals)


def _sums(
    cells: list[rate.RateCell], totals: list[tuple[int, int]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    good = [0, 0]
    bad = [0, 0]
    for cell, (stable, ours) in zip(cells, totals, strict=True):
        events = (cell.events - cell.candidate, cell.candidate)
        for at, total in enumerate((stable, ours)):
            bad[at] += events[at]
            good[at] += max(0, total - events[at])
    return (good[0], bad[0]), (good[1], bad[1])
