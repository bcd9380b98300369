"""A metric as people see it: both arms, estimate, interval, margin, evidence, verdict. Pure."""

from __future__ import annotations

import math

from hotswap.core import label_view, measures
from hotswap.core.analysis import Analysis, Measured, taken
from hotswap.core.evidence import Arm, Evidence, added
from hotswap.core.metric_names import LABELLED
from hotswap.core.rollout import Rollout
from hotswap.core.rollout_views import ArmView, MetricView
from hotswap.core.sentences import odds
from hotswap.core.strategy import Guardrail
from hotswap.stats import drift, latency, margin, pairs, quantiles, rate

_MOST = 700.0

Shown = tuple[dict[str, ArmView], float | None, tuple[float, float] | None, int, str]


def metric_views(rollout: Rollout, analysis: Analysis) -> tuple[MetricView, ...]:
    """Every metric of the rollout with its details."""
    guardrails = {each.metric: each for each in rollout.spec.guardrails}
    views = []
    for measured in analysis.metrics:
        name = measured.name.removesuffix(" improves")
        guardrail = guardrails.get(name, Guardrail(name))
        views.append(_view(rollout, measured, name, guardrail))
    return tuple(views)


def _view(rollout: Rollout, measured: Measured, name: str, guardrail: Guardrail) -> MetricView:
    arms, estimate, interval, n, comparison = _shown(rollout, name, guardrail)
    limit = _margin(guardrail, comparison)
    return MetricView(
        name=measured.name,
        arms=arms,
        estimate=_finite(estimate),
        interval=_plain(interval),
        n=n,
        margin=limit,
        evidence=math.exp(min(_MOST, measured.against)),
        verdict=measured.verdict,
        proof=math.exp(min(_MOST, measured.proof)),
        needed=1.0 / rollout.spec.alpha if name != "sample_ratio" else 1000.0,
        comparison=comparison,
        role=measured.role,
        dry_run=measured.dry_run,
        sentence=_sentence(measured, limit) + _labels_in(rollout, name),
    )


def _labels_in(rollout: Rollout, name: str) -> str:
    """How many labels that rests on."""
    if name not in LABELLED:
        return ""
    return f"; {label_view.coverage(rollout.evidence.labels, rollout.spec.label_maturity_seconds)}"


def _margin(guardrail: Guardrail, comparison: str) -> float | None:
    """The limit in the unit of the comparison that is shown, None if there is none in it."""
    if comparison == "ratio":
        return guardrail.max_ratio
    if comparison == "difference" and guardrail.metric != "prediction_drift":
        return guardrail.max_increase
    return guardrail.maximum


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _sentence(measured: Measured, margin: float | None) -> str:
    if measured.why:
        return measured.why
    if measured.verdict == "fail":
        return f"worse: evidence {odds(measured.against)}"
    if measured.role == "objective":
        shown = "shown to improve" if measured.verdict == "pass" else "not yet shown to improve"
        return f"{shown}: {odds(measured.proof)}"
    if measured.verdict == "pass":
        return f"within the margin: {odds(measured.proof)}" if measured.proof else "as it should be"
    if margin is None:
        return f"nothing against it: evidence {odds(measured.against)}"
    return f"not yet decided: {odds(measured.against)} against, {odds(measured.proof)} for"


def _shown(rollout: Rollout, name: str, guardrail: Guardrail) -> Shown:
    evidence, alpha = rollout.evidence, rollout.spec.alpha
    if name in measures.COUNT:
        return _rate(rollout, guardrail, alpha)
    if name.startswith("latency"):
        return _latency(rollout, name, alpha)
    if name == "disagreement":
        differ, total = measures.differing(evidence)
        interval = pairs.rate_interval(differ, total, alpha) if total else None
        value = differ / total if total else None
        arms = {"candidate": ArmView(rollout.spec.version, total, differ, value)}
        return arms, value, interval, total, "level"
    if name == "prediction_drift":
        return _drift(rollout, alpha)
    if name == "sample_ratio":
        return _ratio(rollout)
    if name in LABELLED:
        versions = _stable(rollout), rollout.spec.version
        return label_view.shown(evidence.labels, name, guardrail, versions, alpha)
    return {}, None, None, 0, "level"


def _stable(rollout: Rollout) -> str:
    return rollout.stable or "stable"


def _rate(rollout: Rollout, guardrail: Guardrail, alpha: float) -> Shown:
    name = guardrail.metric
    evidence, count = rollout.evidence, measures.COUNT[name]
    stages = measures.unpaired(evidence)
    version = rollout.spec.version
    if not stages and measures.discordant(evidence) != (0, 0, 0) and name == "error_rate":
        both = measures.discordant(evidence)
        total = sum(both)
        estimate, low, high = pairs.difference_interval(both, alpha)
        neither = sum(stage.pairs.neither for stage in evidence.stages)
        ours, theirs = both.worse + neither, both.better + neither
        arms = {
            "stable": ArmView(_stable(rollout), total, theirs, theirs / total),
            "candidate": ArmView(version, total, ours, ours / total),
        }
        return arms, estimate, (low, high), total, "difference"
    last = stages if stages else [stage for stage in evidence.stages if stage.candidate.requests]
    ours, n_ours = sum(count(s.candidate) for s in last), sum(s.candidate.requests for s in last)
    theirs, n_theirs = sum(count(s.stable) for s in last), sum(s.stable.requests for s in last)
    arms = {
        "stable": ArmView(
            _stable(rollout), n_theirs, theirs, theirs / n_theirs if n_theirs else None
        ),
        "candidate": ArmView(version, n_ours, ours, ours / n_ours if n_ours else None),
    }
    cells = measures.rate_cells(evidence, count)
    absolute = guardrail.max_increase is not None and guardrail.max_ratio is None
    if absolute or not any(cell.events for cell in cells):
        return _difference(evidence, name, arms, n_ours + n_theirs, alpha)
    interval = rate.ratio_interval(cells, alpha)
    return arms, _mean_ratio(evidence, name), interval, n_ours + n_theirs, "ratio"


def _difference(
    evidence: Evidence, name: str, arms: dict[str, ArmView], n: int, alpha: float
) -> Shown:
    """Where the margin is an increase. And without one event: there is no ratio then, but how far
    the rates can lie apart is known all the same.
    """
    count = measures.COUNT[name]
    cells = measures.mean_cells(evidence, count)
    if not n or not cells:
        return arms, None, None, n, "difference"
    mean = evidence.error_mean if name == "error_rate" else evidence.invalid_mean
    interval = margin.difference_interval(cells, mean, alpha)
    return arms, _mean_difference(evidence, count), interval, n, "difference"


def _mean_difference(evidence: Evidence, count: measures.Count) -> float | None:
    """The difference of rates, stage by stage (Mantel-Haenszel): never of pooled rates."""
    total = weights = 0.0
    for stage in measures.unpaired(evidence):
        ours, theirs = stage.candidate.requests, stage.stable.requests
        if ours and theirs:
            weight = ours * theirs / (ours + theirs)
            total += weight * (count(stage.candidate) / ours - count(stage.stable) / theirs)
            weights += weight
    return total / weights if weights else None


def _plain(interval: tuple[float, float] | None) -> tuple[float | None, float | None] | None:
    """Open sides as None: JSON has no infinity."""
    return None if interval is None else (_finite(interval[0]), _finite(interval[1]))


def _mean_ratio(evidence: Evidence, name: str) -> float | None:
    """The ratio of rates, stage by stage (Mantel-Haenszel): never of pooled rates."""
    count = measures.COUNT[name]
    above = below = 0.0
    for stage in measures.unpaired(evidence):
        ours, stable = stage.candidate, stage.stable
        total = ours.requests + stable.requests
        if total:
            above += count(ours) * stable.requests / total
            below += count(stable) * ours.requests / total
    return above / below if below else None


def _latency(rollout: Rollout, name: str, alpha: float) -> Shown:
    quantile = "p95" if name == "latency" else name.removeprefix("latency_")
    cells = measures.latency_cells(rollout.evidence)
    stable: dict[int, int] = {}
    ours: dict[int, int] = {}
    for cell in cells:
        stable, ours = added(stable, cell.stable), added(ours, cell.candidate)
    if not cells:
        for stage in rollout.evidence.stages[-1:]:
            stable, ours = stage.stable.latency, taken(stage)
    p = int(quantile[1:]) / 100
    arms = {
        "stable": _quantile(_stable(rollout), stable, p),
        "candidate": _quantile(rollout.spec.version, ours, p),
    }
    total = sum(stable.values()) + sum(ours.values())
    if not cells or not stable or not ours:
        return arms, None, None, total, "ratio"
    estimate, low, high = latency.ratio_interval(cells, p, alpha)
    return arms, estimate, (low, high), total, "ratio"


def _quantile(version: str, counts: dict[int, int], p: float) -> ArmView:
    n = sum(counts.values())
    value = quantiles.quantile(counts, p) / 1e6 if n else None
    return ArmView(version, n, None, _finite(value))


def _drift(rollout: Rollout, alpha: float) -> Shown:
    stages = [s for s in measures.split_stages(rollout.evidence) if s.candidate.values]
    if not stages or not stages[-1].stable.values:
        return {}, None, None, 0, "difference"
    stage = stages[-1]
    estimate, low, high = drift.interval(stage.stable.values, stage.candidate.values, alpha)
    n = sum(stage.candidate.values.values())
    arms = {
        "stable": ArmView(_stable(rollout), sum(stage.stable.values.values())),
        "candidate": ArmView(rollout.spec.version, n),
    }
    return arms, estimate, (low, high), n, "difference"


def _ratio(rollout: Rollout) -> Shown:
    ours = theirs = 0
    expected = 0.0
    for stage in measures.split_stages(rollout.evidence):
        total = stage.candidate.requests + stage.stable.requests
        ours, theirs = ours + stage.candidate.requests, theirs + stage.stable.requests
        expected += total * stage.rho
    share = ours / (ours + theirs) if ours + theirs else None
    arms = {
        "stable": ArmView(_stable(rollout), theirs),
        "candidate": ArmView(rollout.spec.version, ours, None, share),
    }
    estimate = ours / expected if expected else None
    return arms, estimate, None, ours + theirs, "ratio"


def failures(arm: Arm) -> int:
    """Of any kind."""
    return arm.failed + arm.invalid
