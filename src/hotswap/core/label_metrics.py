"""Metrics that labels decide: which losses they are judged by, and what these say. Pure.

All are told as people know them (accuracy, AUC and reward: more is better; the others: less), and
judged as losses: ``max_increase`` of accuracy is how much of it may be lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hotswap.core.guards import Guardrail, Objective
from hotswap.core.label_evidence import Labels
from hotswap.core.metric_names import LABELLED
from hotswap.core.routing import WHOLE
from hotswap.stats import differences, means, pairs
from hotswap.stats.losses import NATS
from hotswap.stats.pairs import Pairs

#: The loss by which a metric is judged; the ranking has blocks of its own.
LOSS: Final = {
    "accuracy": "accuracy",
    "log_loss": "log_loss",
    "brier": "brier",
    "mae": "absolute",
    "rmse": "squared",
    "reward": "reward",
}
#: Metrics that are compared as ratios: their unit is the label's own.
RELATIVE: Final = ("mae", "rmse")


def scaled(metric: str, ratio: float) -> str:
    """The key of a loss by which "at most ``ratio`` times stable's" is judged.

    >>> scaled("mae", 1.05), scaled("rmse", 1.1), scaled("mae", 1.0)
    ('absolute*1.05', 'squared*1.21', 'absolute')
    """
    ratio = ratio**2 if metric == "rmse" else ratio
    return LOSS[metric] if ratio == 1.0 else f"{LOSS[metric]}*{ratio:.6g}"


def needed(
    guardrails: Iterable[Guardrail], objectives: Iterable[Objective], target: str = ""
) -> tuple[str, ...]:
    """The keys of the losses that must be counted, ``auc`` among them; none: no label is needed."""
    found: dict[str, None] = {}
    for guardrail in guardrails:
        if guardrail.metric in LABELLED:
            found |= dict.fromkeys(_keys(guardrail.metric, guardrail.max_ratio))
    for objective in objectives:
        if objective.metric in LABELLED:
            ratio = 1.0 - objective.min_improvement if objective.metric in RELATIVE else None
            found |= dict.fromkeys(_keys(objective.metric, ratio))
    if target in LABELLED:
        found |= dict.fromkeys(_keys(target, None))
    return tuple(found)


def _keys(metric: str, ratio: float | None) -> tuple[str, ...]:
    if metric == "auc":
        return ("auc",)
    plain = LOSS[metric]
    return (plain,) if ratio is None or ratio == 1.0 else (plain, scaled(metric, ratio))


def against(metric: str, labels: Labels) -> float:
    """Log evidence that the candidate is worse (0 without labels)."""
    if metric == "auc":
        return differences.rollback_evidence(labels.ranking().counts)
    key = LOSS[metric]
    counts = labels.differences(key)
    found = 0.0
    if counts:
        exact = _exact(counts) if metric == "accuracy" else None
        found = (
            pairs.mcnemar_evidence(exact)
            if exact is not None
            else differences.rollback_evidence(counts)
        )
    cells = value_cells(labels, key)
    if cells:
        found += means.rollback_evidence(cells, labels.means.get(key, 0.5))
    return found


def proof(metric: str, labels: Labels, guardrail: Guardrail) -> float:
    """Log evidence that the candidate is within the guardrail's margin (0 without labels)."""
    if metric in RELATIVE and guardrail.max_ratio is not None:
        return _shown(labels, scaled(metric, guardrail.max_ratio), 0.0)
    return _by(metric, labels, guardrail.max_increase)


def better(metric: str, labels: Labels, improvement: float) -> float:
    """Log evidence that it is better by that much: of mae and rmse a share, else in their unit."""
    if metric in RELATIVE:
        return _shown(labels, scaled(metric, 1.0 - improvement), 0.0)
    return _by(metric, labels, -improvement)


def _by(metric: str, labels: Labels, margin: float | None) -> float:
    if margin is None:
        return 0.0
    in_losses = unit(metric, labels)
    if in_losses is None:
        return 0.0
    limit = max(-0.999, min(0.999, margin / in_losses))
    if metric == "auc":
        return differences.promotion_evidence(labels.ranking().counts, limit)
    return _shown(labels, LOSS[metric], limit)


def _shown(labels: Labels, key: str, margin: float) -> float:
    counts = labels.differences(key)
    found = differences.promotion_evidence(counts, margin) if counts else 0.0
    cells = value_cells(labels, key)
    if cells:
        # Any fixed number will do to bet around; that of the plain loss is near.
        around = labels.means.get(key.partition("*")[0], 0.5)
        found += means.promotion_evidence(cells, around, margin)
    return found


def unit(metric: str, labels: Labels) -> float | None:
    """How much of the metric a loss of 1 is; None before that is known.

    >>> unit("accuracy", Labels())
    1.0
    """
    if metric == "log_loss":
        return NATS
    if metric in ("mae", "rmse"):
        return labels.scales.get(LOSS[metric])
    if metric == "reward":
        return labels.high - labels.low if labels.high > labels.low else None
    return 1.0


def value_cells(labels: Labels, key: str) -> list[means.ValueCell]:
    """Losses by arm of each stage in which a coin was tossed."""
    return [
        means.ValueCell(
            stage.weight / WHOLE, stage.candidate.get(key, {}), stage.stable.get(key, {})
        )
        for stage in labels.stages.values()
        if 0 < stage.weight < WHOLE and (key in stage.candidate or key in stage.stable)
    ]


def _exact(counts: dict[int, int]) -> Pairs | None:
    """Worse, better and ties where that is all there is."""
    steps = differences.STEPS
    if counts.keys() - {-steps, 0, steps}:
        return None
    return Pairs(counts.get(steps, 0), counts.get(-steps, 0), counts.get(0, 0))


__all__ = [
    "LOSS", "RELATIVE", "against", "better", "needed", "proof", "scaled", "unit", "value_cells",
]  # fmt: skip
