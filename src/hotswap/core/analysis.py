"""What an attempt's evidence says of each metric, and together. Pure; the same for every strategy."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Final

import msgspec

from hotswap.core import measures
from hotswap.core.durations import spoken
from hotswap.core.evidence import Evidence, Recent, Stage, added
from hotswap.core.guards import Guardrail
from hotswap.core.metric_names import DRIFT, LABELLED, PROVABLE
from hotswap.core.strategy import RolloutSpec
from hotswap.stats import buckets, combine, pairs

#: Which formulas these are. It changes whenever the same counters could lead to another verdict.
FORMULA: Final = "1"

#: A sample-ratio alarm is a fault of the counting, not of the candidate: it must be rare.
SAMPLE_RATIO_ALPHA: Final = 0.001
#: Tripwires look at a sliding window, so what they ask for is more than once in their life.
TRIP: Final = math.log(1000)
_LEAST: Final = 20
#: Seconds after which what a source said is no reading any more.
_STALE: Final = 300.0

#: Invalid answers have the share of labels too: they are wrong without one.
_WEIGHTS: Final = {
    "error_rate": combine.WEIGHTS["errors"],
    "invalid_rate": combine.WEIGHTS["labels"],
    **dict.fromkeys(LABELLED, combine.WEIGHTS["labels"]),
}


class Reading(msgspec.Struct, frozen=True):
    """What a metric source said last. ``value`` None: nothing, and ``error`` says why.
    ``age``: seconds since it was read.
    """

    value: float | None = None
    error: str = ""
    age: float = 0.0


class Measured(msgspec.Struct, frozen=True):
    """One metric: log evidence against the candidate, log proof for it (the greatest so far).

    ``verdict``: pass, fail, insufficient or error; ``why`` a few words beside it. ``required``:
    nothing is promoted before it passes.
    """

    name: str
    verdict: str
    against: float = 0.0
    proof: float = 0.0
    dry_run: bool = False
    role: str = "guardrail"
    why: str = ""
    required: bool = True


class Analysis(msgspec.Struct, frozen=True):
    """All metrics together. ``against``: log evidence of all guardrails together, ``named`` whose
    it is; ``failed`` why the candidate must go, ``""`` while it need not; ``tripped`` the same of
    a tripwire. ``proven``: every guardrail is within its margin and every objective met;
    ``missing``: which are not. ``distrust``: why the counters cannot be trusted. ``outage``: which
    readings failed.
    """

    metrics: tuple[Measured, ...]
    against: float
    named: tuple[str, ...]
    failed: str
    tripped: str
    proven: bool
    missing: tuple[str, ...]
    distrust: str
    outage: tuple[str, ...]

    @property
    def labelled(self) -> bool:
        """Whether any metric is one that labels decide."""
        return any(each.name.removesuffix(" improves") in LABELLED for each in self.metrics)

    @property
    def late(self) -> bool:
        """Whether metrics of labels, which go on coming after a promotion, say that it is worse."""
        return any(
            each.verdict == "fail" and each.name in LABELLED and not each.dry_run
            for each in self.metrics
        )

    def metric(self, name: str) -> Measured | None:
        """That metric, or None."""
        return next((each for each in self.metrics if each.name == name), None)


def analyse(
    spec: RolloutSpec,
    evidence: Evidence,
    readings: Mapping[str, Reading],
    peaks: Mapping[str, float],
) -> Analysis:
    """Judge all of it. ``peaks`` are the greatest proofs so far, by metric: a running maximum is
    what may be compared with 1/alpha.

    What was judged already is not judged again while nothing of it changed.
    """
    key = id(evidence)
    kept = _KEPT.get(key)
    given = (spec, readings, peaks)
    if kept is not None and kept[0]() is evidence and kept[1] == given:
        return kept[2]
    found = _analysed(spec, evidence, readings, peaks)
    _KEPT[key] = weakref.ref(evidence, lambda _: _KEPT.pop(key, None)), given, found
    return found


_Given = tuple[RolloutSpec, Mapping[str, Reading], Mapping[str, float]]
#: By the identity of the evidence, as long as it lives.
_KEPT: Final[dict[int, tuple[weakref.ref[Evidence], _Given, Analysis]]] = {}


def _analysed(
    spec: RolloutSpec,
    evidence: Evidence,
    readings: Mapping[str, Reading],
    peaks: Mapping[str, float],
) -> Analysis:
    needed = math.log(1.0 / spec.alpha)
    weights = {each.metric: _weight(each) for each in spec.guardrails if _acts(each)}
    measured = [
        _guardrail(each, evidence, readings, peaks, needed, weights) for each in spec.guardrails
    ]
    for objective in spec.objectives:
        name = f"{objective.metric} improves"
        shown = measures.better(objective.metric, evidence, objective.min_improvement)
        shown = max(shown, peaks.get(name, 0.0))
        verdict = "pass" if shown >= needed else "insufficient"
        measured.append(Measured(name, verdict, proof=shown, role="objective"))
    acting = {each.name: each.against for each in measured if each.name in weights}
    against = combine.rollback(acting, weights) if acting else 0.0
    named: tuple[str, ...] = ()
    failed = ""
    if against >= needed:
        named = combine.named(acting, weights, spec.alpha)
        failed = ", ".join(named) or "all metrics together"
    level = next(
        (m for m in measured if m.verdict == "fail" and m.role == "reading" and not m.dry_run), None
    )
    tripped = _tripped(spec, evidence) or (level.why if level is not None else "")
    missing = tuple(
        each.name
        for each in measured
        if each.verdict != "pass" and each.required and not each.dry_run
    )
    if _seen(evidence) < _LEAST:  # whatever guards it: nothing is shown by nothing
        missing = (*missing, "requests")
    ratio = next((each for each in measured if each.name == "sample_ratio"), None)
    distrust = (
        ratio.why if ratio is not None and ratio.verdict == "fail" and not ratio.dry_run else ""
    )
    outage = tuple(each.name for each in measured if each.verdict == "error" and not each.dry_run)
    return Analysis(
        tuple(measured), against, named, failed, tripped, not missing, missing, distrust, outage
    )


def _seen(evidence: Evidence) -> int:
    return sum(stage.candidate.requests + stage.pairs.total for stage in evidence.stages)


def _acts(guardrail: Guardrail) -> bool:
    """Whether it takes part in the evidence for rolling back."""
    return not (guardrail.dry_run or guardrail.source or guardrail.metric == "sample_ratio")


def _weight(guardrail: Guardrail) -> float:
    if guardrail.weight is not None:
        return guardrail.weight
    if guardrail.metric.startswith("latency"):
        return combine.WEIGHTS["latency"]
    return _WEIGHTS.get(guardrail.metric, combine.WEIGHTS["drift"])


def _guardrail(
    guardrail: Guardrail,
    evidence: Evidence,
    readings: Mapping[str, Reading],
    peaks: Mapping[str, float],
    needed: float,
    weights: Mapping[str, float],
) -> Measured:
    name = guardrail.metric
    if guardrail.source:
        return _reading(guardrail, readings.get(name, Reading(error="nothing was read yet")))
    if name == "sample_ratio":
        return _sample_ratio(guardrail, evidence)
    against = measures.against(name, evidence, guardrail)
    proof = max(measures.proof(name, evidence, guardrail), peaks.get(name, 0.0))
    verdict = "insufficient"
    if against >= needed + math.log(1.0 / _share(guardrail, weights)):
        verdict = "fail"
    elif proof >= needed or _only_trips(guardrail, evidence):
        verdict = "pass"
    return Measured(name, verdict, against, proof, guardrail.dry_run, required=guardrail.required)


def _share(guardrail: Guardrail, weights: Mapping[str, float]) -> float:
    """Of the evidence: what fails by itself rolls back by itself."""
    mine = _weight(guardrail)
    return mine / math.fsum({**weights, guardrail.metric: mine}.values())


def _only_trips(guardrail: Guardrail, evidence: Evidence) -> bool:
    """A level alone is kept unless it trips; it is no margin to be shown. But not without data."""
    if guardrail.max_ratio is not None or guardrail.max_increase is not None:
        return False
    if guardrail.metric == "disagreement":
        return False
    if guardrail.metric.startswith("latency"):
        return sum(sum(taken(stage).values()) for stage in evidence.stages) >= _LEAST
    if guardrail.metric == "prediction_drift":
        return sum(sum(stage.candidate.values.values()) for stage in evidence.stages) >= _LEAST
    return _seen(evidence) >= _LEAST


def _reading(guardrail: Guardrail, reading: Reading) -> Measured:
    """A level that a source reads. What is no number is no data, whatever the comparison."""
    name = guardrail.metric
    stale = reading.age > _STALE
    if stale or reading.value is None or not math.isfinite(reading.value):
        why = reading.error or "the source gave no number"
        why = f"it was last read {spoken(reading.age)} ago" if stale else why
        return Measured(name, "error", dry_run=guardrail.dry_run, role="reading", why=why)
    assert guardrail.maximum is not None
    verdict = "fail" if reading.value > guardrail.maximum else "pass"
    sign = ">" if verdict == "fail" else "<="
    why = f"{name} is {reading.value:g} {sign} {guardrail.maximum:g}"
    if guardrail.source == DRIFT and verdict == "fail":
        # Both versions get these inputs: that is no reason to go back, and none to go on.
        verdict, why = "error", f"{why}: what is asked has changed, for both versions"
    return Measured(name, verdict, dry_run=guardrail.dry_run, role="reading", why=why)


def _sample_ratio(guardrail: Guardrail, evidence: Evidence) -> Measured:
    against = measures.sample_ratio(evidence)
    if against >= math.log(1.0 / SAMPLE_RATIO_ALPHA):
        why = "outcomes did not arrive in the proportion in which requests were assigned"
        return Measured("sample_ratio", "fail", against, dry_run=guardrail.dry_run, why=why)
    return Measured("sample_ratio", "pass", against, dry_run=guardrail.dry_run)


def _tripped(spec: RolloutSpec, evidence: Evidence) -> str:
    """Absolute limits on the candidate in the last minute; "" while all are kept.

    Where stable is beyond the limit too, something else is wrong: going back would not help.
    """
    total = Recent(0)
    for each in evidence.recent:
        total = Recent(
            0,
            total.candidate + each.candidate,
            total.candidate_failed + each.candidate_failed,
            total.stable + each.stable,
            total.stable_failed + each.stable_failed,
        )
    limits = [
        guardrail.maximum
        for guardrail in spec.guardrails
        if guardrail.metric in measures.COUNT and guardrail.maximum is not None
        and not guardrail.dry_run
    ]  # fmt: skip
    threshold = _threshold(spec)
    if threshold is not None:
        limits.append(threshold)
    if limits and total.candidate >= _LEAST:
        limit = min(limits)
        # Of units that came back only the failure is new: there can be more of them than requests.
        failed = min(total.candidate_failed, total.candidate)
        stable_too = total.stable_failed > limit * total.stable
        shown = pairs.limit_evidence(failed, total.candidate, limit)
        if shown >= TRIP and not stable_too:
            return (
                f"{failed} of the candidate's last {total.candidate} requests "
                f"failed, and at most {limit * 100:g} % may"
            )
    return _slow(spec, evidence)


def _threshold(spec: RolloutSpec) -> float | None:
    """The canary's own limit, also of a canary that follows a shadow."""
    config = spec.config.get("then_config") or spec.config
    found: float | None = config.get("max_error_rate_threshold")
    return found


def _slow(spec: RolloutSpec, evidence: Evidence) -> str:
    """Absolute limits on latency, in milliseconds."""
    for guardrail in spec.guardrails:
        name, limit = guardrail.metric, guardrail.maximum
        if limit is None or guardrail.dry_run or not name.startswith("latency"):
            continue
        quantile = 0.99 if name == "latency" else int(name.removeprefix("latency_p")) / 100
        if not evidence.stages:
            continue
        stage, at = evidence.stages[-1], buckets.bucket(int(limit * 1e6))
        above, total = _above(taken(stage), at)
        slow_too, stable = _above(stage.stable.latency, at)
        if slow_too > (1.0 - quantile) * stable:
            continue  # stable is beyond it too: going back would not help
        if total >= _LEAST and pairs.limit_evidence(above, total, 1.0 - quantile) >= TRIP:
            return (
                f"{above} of the candidate's last {total} answers took longer than {limit:g} ms, "
                f"and at most {100 * (1 - quantile):g} % may"
            )
    return ""


def taken(stage: Stage) -> dict[int, int]:
    """How long the candidate took, for requests and for copies of them."""
    return added(stage.candidate.latency, stage.pairs.latency)


def _above(counts: Mapping[int, int], at: int) -> tuple[int, int]:
    """Answers that took longer than the bucket, and all."""
    return sum(n for bucket, n in counts.items() if bucket > at), sum(counts.values())


def two_sided(spec: RolloutSpec, evidence: Evidence, metric: str) -> tuple[str, float, float]:
    """A test's verdict on its metric: better, worse or insufficient, with the log evidence for
    better and for worse.
    """
    assert metric in (*PROVABLE, *LABELLED)
    needed = math.log(1.0 / spec.alpha)
    worse = measures.against(metric, evidence, Guardrail(metric))
    better = measures.better(metric, evidence, 0.0)
    if worse >= needed and worse >= better:
        return "worse", better, worse
    return ("better" if better >= needed else "insufficient"), better, worse
