"""A metric of labels as people see it: both versions' values, how much was lost, with bounds. Pure."""

from __future__ import annotations

import math

from hotswap.core import label_metrics
from hotswap.core.durations import spoken
from hotswap.core.guards import Guardrail
from hotswap.core.label_evidence import Labels, added
from hotswap.core.label_metrics import LOSS, unit, value_cells
from hotswap.core.rollout_views import ArmView
from hotswap.core.routing import WHOLE
from hotswap.stats import differences, means

Interval = tuple[float, float]
Shown = tuple[dict[str, ArmView], float | None, Interval | None, int, str]


def shown(
    labels: Labels, name: str, guardrail: Guardrail, versions: tuple[str, str], alpha: float
) -> Shown:
    """Arms, estimate, interval, rows, comparison. The estimate is what is lost: by how much the
    candidate is worse, in the metric's unit (a ratio for mae and rmse with ``max_ratio``).
    """
    if name == "auc":
        counts = labels.ranking().counts
        n = sum(counts.values())
        arms = {"stable": ArmView(versions[0], n), "candidate": ArmView(versions[1], n)}
        if not n:
            return arms, None, None, 0, "difference"
        return arms, differences.mean(counts), differences.interval(counts, alpha), n, "difference"
    arms, n = _arms(labels, name, versions)
    if name in label_metrics.RELATIVE and guardrail.max_ratio is not None:
        return arms, _ratio(arms), None, n, "ratio"
    size = unit(name, labels)
    found = None if size is None else _lost(labels, LOSS[name], alpha)
    if found is None or size is None:
        return arms, None, None, n, "difference"
    estimate, (low, high) = found
    return arms, estimate * size, (low * size, high * size), n, "difference"


def _ratio(arms: dict[str, ArmView]) -> float | None:
    stable, candidate = arms["stable"].value, arms["candidate"].value
    return None if not stable or candidate is None else candidate / stable


def _lost(labels: Labels, key: str, alpha: float) -> tuple[float, Interval] | None:
    """Of a loss: candidate minus stable, with bounds that hold at all times."""
    counts = labels.differences(key)
    if counts:
        return differences.mean(counts), differences.interval(counts, alpha)
    cells = value_cells(labels, key)
    weighed = total = 0.0
    for cell in cells:
        ours, theirs = sum(cell.candidate.values()), sum(cell.stable.values())
        if ours and theirs:
            weight = ours * theirs / (ours + theirs)
            total += weight * (means.mean(cell.candidate) - means.mean(cell.stable))
            weighed += weight
    if not weighed:
        return None
    bounds = means.difference_interval(cells, labels.means.get(key, 0.5), alpha)
    return total / weighed, bounds


def _arms(labels: Labels, name: str, versions: tuple[str, str]) -> tuple[dict[str, ArmView], int]:
    key = LOSS[name]
    sums = [stage.sums[key] for stage in labels.stages.values() if key in stage.sums]
    n = sum(each[2] for each in sums)
    if n:
        losses = [sum(each[at] for each in sums) / n for at in (0, 1)]
        sizes = [n, n]
    else:
        stages = [s for s in labels.stages.values() if 0 < s.weight < WHOLE]
        sides = [
            added(s.stable.get(key, {}) for s in stages),
            added(s.candidate.get(key, {}) for s in stages),
        ]
        sizes = [sum(side.values()) for side in sides]
        losses = [
            means.mean(side) if size else math.nan for side, size in zip(sides, sizes, strict=True)
        ]
        n = sum(sizes)
    values = [_value(labels, name, loss) for loss in losses]
    return {
        "stable": ArmView(versions[0], sizes[0], None, values[0]),
        "candidate": ArmView(versions[1], sizes[1], None, values[1]),
    }, n


def _value(labels: Labels, name: str, loss: float) -> float | None:
    """A mean loss as the metric has it."""
    size = unit(name, labels)
    if size is None or not math.isfinite(loss):
        return None
    if name == "accuracy":
        return 1.0 - loss
    if name == "reward":
        return labels.high - loss * size
    return math.sqrt(loss * size) if name == "rmse" else loss * size


def coverage(labels: Labels, maturity: float) -> str:
    """How many labels are in, in words. ``maturity``: seconds that a label may take.

    >>> coverage(Labels(), 3600.0)
    'no request is 1 h old yet, when its label counts'
    """
    if labels.problem:
        return f"labels cannot be counted: {labels.problem}"
    if not labels.expected:
        return f"no request is {spoken(maturity)} old yet, when its label counts"
    share = 100.0 * labels.labelled / labels.expected
    return f"{labels.labelled:,} of {labels.expected:,} rows have their label ({share:.0f} %)"


__all__ = ["coverage", "shown"]
