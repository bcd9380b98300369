"""A rollout as it is shown, from its value, its analysis and its history. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hotswap.core.analysis import Analysis
from hotswap.core.evidence import paired
from hotswap.core.journal import builtins
from hotswap.core.metric_view import failures, metric_views
from hotswap.core.phases import phase, reason
from hotswap.core.plan import Hold, Mirror, Pair, Requests, SetWeight, kind, label
from hotswap.core.rollout import Exposure, Rollout
from hotswap.core.rollout_views import HistoryView, PairView, PointView, RolloutView, StepView
from hotswap.core.routing import WHOLE
from hotswap.core.windows import PairCounts


def rollout_view(
    rollout: Rollout,
    analysis: Analysis | None,
    history: Sequence[HistoryView],
    exposed: Exposure | None,
    active: str | None,
    series: Sequence[PointView] = (),
) -> RolloutView:
    """``analysis`` None: without metrics. ``exposed``: by the route table in force."""
    status, spec = rollout.status, rollout.spec
    return RolloutView(
        id=rollout.id,
        model=spec.model,
        version=spec.version,
        stable=rollout.stable,
        strategy=spec.strategy,
        phase=phase(status),
        reason=reason(status),
        message=status.message,
        generation=status.generation,
        attempt=status.attempt,
        step=status.step,
        steps=_steps(rollout),
        weights=_weights(rollout, exposed, active),
        metrics=() if analysis is None else metric_views(rollout, analysis),
        history=tuple(history),
        counts=_counts(rollout),
        elapsed_seconds=status.elapsed,
        step_seconds=status.step_elapsed,
        bake_seconds=spec.bake_seconds,
        alpha=spec.alpha,
        final=rollout.final,
        created_at=rollout.created_at,
        updated_at=rollout.updated_at,
        spec=_spec(rollout),
        warnings=rollout.warnings,
        series=tuple(series),
        pairs=_pairs(rollout),
        idempotency_key=rollout.idempotency_key,
    )


def _spec(rollout: Rollout) -> dict[str, Any]:
    return builtins(rollout.spec)


def _steps(rollout: Rollout) -> tuple[StepView, ...]:
    status = rollout.status
    over = status.state in ("healthy", "watching", "completed")
    views = []
    weight = 0
    for number, step in enumerate(rollout.steps):
        if isinstance(step, SetWeight | Pair):
            weight = step.weight
        elif isinstance(step, Mirror):
            weight = 0
        elif kind(step) in ("promote", "bake"):
            weight = WHOLE
        state = "waiting"
        if number in status.passed:
            state = "skipped"
        elif over or number < status.step:
            state = "done"
        elif number == status.step and status.state not in ("preparing", "queued"):
            state = "current"
        seconds = step.seconds if isinstance(step, Hold) else getattr(step, "seconds", 0.0)
        requests = step.count if isinstance(step, Requests) else 0
        views.append(
            StepView(label(step), kind(step), state, weight / 100, float(seconds), requests)
        )
    return tuple(views)


def _weights(rollout: Rollout, exposed: Exposure | None, active: str | None) -> dict[str, float]:
    """Percent of the unpinned requests that each version answers now."""
    version, stable = rollout.spec.version, rollout.stable
    if exposed is None:
        weights = {} if stable is None else {stable: 0.0}
        weights[version] = 0.0
        if active is not None:
            weights[active] = 100.0
        return weights
    ours = exposed.weight / 100
    weights = {version: ours}
    if stable is not None:
        weights = {stable: 100.0 - ours, version: ours}
    return weights


def _pairs(rollout: Rollout) -> PairView | None:
    """All stages together: it describes, and decides nothing."""
    total = PairCounts()
    for stage in rollout.evidence.stages:
        if stage.pairs.total:
            total = paired(total, stage.pairs)
    if not total.total:
        return None
    confusion: dict[str, dict[str, int]] = {}
    for labels, count in sorted(total.confusion.items()):
        stable, _, ours = labels.partition("|")
        confusion.setdefault(stable, {})[ours] = count
    numeric = total.both > 0
    return PairView(
        total.total,
        total.both,
        total.agree,
        total.worse,
        total.better,
        total.neither,
        total.difference / total.both if numeric else None,
        total.largest if numeric else None,
        confusion,
    )


def _counts(rollout: Rollout) -> dict[str, int]:
    stages = rollout.evidence.stages
    return {
        "candidate_requests": sum(stage.candidate.requests for stage in stages),
        "stable_requests": sum(stage.stable.requests for stage in stages),
        "candidate_failures": sum(failures(stage.candidate) for stage in stages),
        "stable_failures": sum(failures(stage.stable) for stage in stages),
        "fallbacks": sum(sum(stage.fallbacks.values()) for stage in stages),
        "pairs": sum(stage.pairs.total for stage in stages),
        "pairs_candidate_failed": sum(s.pairs.worse + s.pairs.neither for s in stages),
        "mirrored": sum(stage.mirrored for stage in stages),
        "dropped": sum(stage.dropped for stage in stages),
        "excluded": sum(stage.excluded for stage in stages),
    }
