"""A metric's evidence from an attempt's counters: against "no worse", and for "within the margin".

All evidence is the natural logarithm of an e-process: 0 is none, ln 20 is 20:1. Stages are
multiplied, never pooled. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from hotswap.core import label_metrics
from hotswap.core.evidence import Arm, Evidence, Stage, added
from hotswap.core.guards import Guardrail
from hotswap.core.metric_names import LABELLED
from hotswap.core.routing import WHOLE
from hotswap.stats import drift, latency, margin, pairs, rate, split
from hotswap.stats.pairs import Pairs

#: Which quantiles must be shown for "latency"; their places among a reference's thresholds.
QUANTILES: Final = {"p50": 0, "p95": 2, "p99": 3}

Count = Callable[[Arm], int]


def failed(arm: Arm) -> int:
    """Errors and timeouts."""
    return arm.failed


def asked(arm: Arm) -> int:
    """Requests."""
    return arm.requests


def invalid(arm: Arm) -> int:
    """Answers that were none."""
    return arm.invalid


COUNT: Final[dict[str, Count]] = {"error_rate": failed, "invalid_rate": invalid}


def split_stages(evidence: Evidence) -> list[Stage]:
    """Stages in which a coin was tossed."""
    return [stage for stage in evidence.stages if 0 < stage.weight < WHOLE]


def unpaired(evidence: Evidence) -> list[Stage]:
    """Stages in which each request was seen by one arm alone."""
    return [stage for stage in split_stages(evidence) if not stage.pair]


#: What was found last: several metrics of one evidence ask for the same cells in a row.
_found: tuple[Evidence, dict[Count, list[margin.MeanCell]], list[latency.LatencyCell]] | None = None


def _cells(
    evidence: Evidence,
) -> tuple[dict[Count, list[margin.MeanCell]], list[latency.LatencyCell]]:
    """Of rates by what is counted, and of latency."""
    global _found
    last = _found
    if last is None or last[0] is not evidence:
        _found = last = evidence, {}, _latency_cells(evidence)
    return last[1], last[2]


def rate_cells(evidence: Evidence, count: Count) -> list[rate.RateCell]:
    """Events in both arms and on the candidate, by stage."""
    return [
        rate.RateCell(rho, ours + theirs, ours)
        for rho, ours, _, theirs, _ in mean_cells(evidence, count)
    ]


def mean_cells(evidence: Evidence, count: Count) -> list[margin.MeanCell]:
    """Requests with and without the event, by arm and stage."""
    kept = _cells(evidence)[0]
    if count in kept:
        return kept[count]
    cells = []
    for stage in unpaired(evidence):
        ours = stage.candidate
        events, requests = stage.stable_count(count), stage.stable_count(asked)
        mine = count(ours)
        cells.append(
            margin.MeanCell(
                stage.rho, mine, max(0, ours.requests - mine), events, max(0, requests - events)
            )
        )
    kept[count] = cells
    return cells


def discordant(evidence: Evidence) -> Pairs:
    """Requests that both saw and on which one alone failed."""
    worse = sum(stage.pairs.worse for stage in evidence.stages)
    better = sum(stage.pairs.better for stage in evidence.stages)
    total = sum(stage.pairs.total for stage in evidence.stages)
    return Pairs(worse, better, max(0, total - worse - better))


def latency_cells(evidence: Evidence) -> list[latency.LatencyCell]:
    """Latency of arms that are equally loaded, by the candidate's probability among the two.

    Stages of the same probability are one cell: their evidence multiplies, so their counts add.
    """
    return _cells(evidence)[1]


def _latency_cells(evidence: Evidence) -> list[latency.LatencyCell]:
    cells: dict[float, latency.LatencyCell] = {}
    for stage in evidence.stages:
        compared = stage.compared
        if compared is not None:
            rho, theirs = compared[0], compared[1].latency
            ours = stage.candidate.latency
            before = cells.get(rho)
            if before is not None:
                theirs, ours = added(before.stable, theirs), added(before.candidate, ours)
            cells[rho] = latency.LatencyCell(rho, theirs, ours)
    return list(cells.values())


def reference(evidence: Evidence) -> latency.Reference | None:
    """The frozen reference, None before there is one."""
    if evidence.reference is None:
        return None
    return _reference(tuple(sorted(evidence.reference.counts.items())))


@lru_cache(maxsize=4096)
def _reference(counts: tuple[tuple[int, int], ...]) -> latency.Reference:
    return latency.freeze(dict(counts))


def exceeding(evidence: Evidence, quantile: str) -> list[rate.RateCell]:
    """Answers that took longer than stable's frozen quantile, by stage."""
    frozen = reference(evidence)
    if frozen is None:
        return []
    limit = frozen.thresholds[QUANTILES[quantile]]
    found = []
    for cell in latency_cells(evidence):
        ours = sum(count for bucket, count in cell.candidate.items() if bucket > limit)
        theirs = sum(count for bucket, count in cell.stable.items() if bucket > limit)
        found.append(rate.RateCell(cell.rho, ours + theirs, ours))
    return found


def against(metric: str, evidence: Evidence, guardrail: Guardrail) -> float:
    """Log evidence that the candidate is worse than it may be to stay (0 without data)."""
    if metric in LABELLED:
        return label_metrics.against(metric, evidence.labels)
    if metric in COUNT:
        cells = rate_cells(evidence, COUNT[metric])
        found = rate.rollback_evidence(cells) if cells else 0.0
        if metric == "error_rate":
            both = discordant(evidence)
            if both.worse + both.better:
                found += pairs.mcnemar_evidence(both)
        return found
    if metric == "latency":
        frozen = reference(evidence)
        return 0.0 if frozen is None else latency.rollback_evidence(latency_cells(evidence), frozen)
    if metric.startswith("latency_"):
        return rate.rollback_evidence(exceeding(evidence, metric.removeprefix("latency_")))
    if metric == "disagreement" and guardrail.maximum is not None:
        differ, total = differing(evidence)
        return pairs.limit_evidence(differ, total, guardrail.maximum) if total else 0.0
    if metric == "prediction_drift" and guardrail.maximum is not None:
        return sum(
            drift.evidence(stage.stable.values, stage.candidate.values, guardrail.maximum)
            for stage in split_stages(evidence)
        )
    return 0.0


def proof(metric: str, evidence: Evidence, guardrail: Guardrail) -> float:
    """Log evidence that the candidate is within the guardrail's margin (0 without data)."""
    if metric in LABELLED:
        return label_metrics.proof(metric, evidence.labels, guardrail)
    if metric in COUNT:
        return _rate_proof(metric, evidence, guardrail)
    if metric.startswith("latency"):
        frozen = reference(evidence)
        if frozen is None or guardrail.max_ratio is None:
            return 0.0
        cells = latency_cells(evidence)
        wanted = tuple(QUANTILES) if metric == "latency" else (metric.removeprefix("latency_"),)
        return min(
            latency.promotion_evidence(cells, frozen, q, guardrail.max_ratio) for q in wanted
        )
    if metric == "disagreement" and guardrail.maximum is not None:
        differ, total = differing(evidence)
        return pairs.limit_promotion_evidence(differ, total, guardrail.maximum) if total else 0.0
    return 0.0


def _rate_proof(metric: str, evidence: Evidence, guardrail: Guardrail) -> float:
    """Within the ratio *or* within the increase: the average of the two, each evidence against
    "beyond both". With errors so rare that no ratio can be told, the increase is what counts.
    """
    mean = evidence.error_mean if metric == "error_rate" else evidence.invalid_mean
    found = []
    if guardrail.max_ratio is not None:
        found.append(
            rate.promotion_evidence(rate_cells(evidence, COUNT[metric]), guardrail.max_ratio)
        )
    if guardrail.max_increase is not None:
        cells = mean_cells(evidence, COUNT[metric])
        found.append(margin.promotion_evidence(cells, mean, guardrail.max_increase))
    alone = _log_mean(found) if found else 0.0
    both = discordant(evidence)
    if not sum(both):
        return alone
    # A pair that both answered says that neither failed in any way.
    increase = guardrail.max_increase
    if increase is None:
        increase = max(0.001, mean * ((guardrail.max_ratio or 1.5) - 1.0))
    return alone + pairs.promotion_evidence(both, increase)


def better(metric: str, evidence: Evidence, improvement: float) -> float:
    """Log evidence that the candidate is better by this much (see `Objective`)."""
    if metric in LABELLED:
        return label_metrics.better(metric, evidence.labels, improvement)
    ratio = 1.0 - improvement
    if metric in COUNT:
        found = rate.promotion_evidence(rate_cells(evidence, COUNT[metric]), ratio)
        both = discordant(evidence)
        if metric == "error_rate" and both.worse + both.better and improvement == 0.0:
            found += pairs.mcnemar_evidence(Pairs(both.better, both.worse, both.ties))
        return found
    frozen = reference(evidence)
    if frozen is None:
        return 0.0
    cells = latency_cells(evidence)
    wanted = tuple(QUANTILES) if metric == "latency" else (metric.removeprefix("latency_"),)
    return min(latency.promotion_evidence(cells, frozen, q, ratio) for q in wanted)


def differing(evidence: Evidence) -> tuple[int, int]:
    """Pairs that both answered differently, and all that both answered."""
    both = sum(stage.pairs.both for stage in evidence.stages)
    return both - sum(stage.pairs.agree for stage in evidence.stages), both


def sample_ratio(evidence: Evidence) -> float:
    """Log evidence that requests were not divided as the coin said (telemetry was lost)."""
    cells = [
        split.SplitCell(
            stage.rho,
            stage.stable_count(asked) + stage.candidate.requests,
            stage.candidate.requests,
        )
        for stage in split_stages(evidence)
    ]
    return split.evidence(cells) if cells else 0.0


def _log_mean(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(each - top) for each in logs) / len(logs))
