"""What a plan can see at the current traffic, before it begins. Pure."""

from __future__ import annotations

import math

from hotswap.core.durations import spoken
from hotswap.core.plan import (
    HALF,
    Adapt,
    Analyse,
    Approval,
    Bake,
    Hold,
    Mirror,
    Pair,
    Promote,
    Requests,
    SetWeight,
    Step,
    compile_steps,
    kind,
    label,
)
from hotswap.core.preflight_labels import label_warnings
from hotswap.core.preflight_latency import latency_seconds
from hotswap.core.rollout_views import PlanView, StepPlan
from hotswap.core.routing import WHOLE
from hotswap.core.strategy import RolloutSpec
from hotswap.stats import power

#: The example: how much a rate of errors rises that a plan should notice.
_TIMES = 2.0
_LEAST = 0.001


def preflight(
    spec: RolloutSpec, body: dict[str, object], stable: str | None, per_second: float, rate: float
) -> PlanView:
    """``per_second``: unpinned requests to the model now; ``rate``: stable's error rate."""
    steps = compile_steps(spec)
    base = max(rate, _LEAST)
    worse = min(base * _TIMES, (1.0 + base) / 2.0)
    regression = f"errors rising from {base * 100:.3g} % to {worse * 100:.3g} %"
    plans: list[StepPlan] = []
    warnings: list[str] = []
    weight = 0
    total = proof = 0.0
    told = True
    for number, step in enumerate(steps):
        if isinstance(step, SetWeight | Pair):
            weight = step.weight
        plan, least, extra = _planned(spec, step, weight, per_second, base, worse)
        if isinstance(step, SetWeight | Mirror | Pair):
            stay = _stay(steps[number + 1 :], per_second, weight)
            plan = _seeing(plan, spec, step, weight, stay, per_second, base, worse)
        plans.append(plan)
        total += least
        if extra is None:
            told = False
        else:
            proof += extra
        if plan.warning:
            warnings.append(f"{plan.label}: {plan.warning}")
    warnings += label_warnings(spec, steps)
    if per_second <= 0:
        warnings.insert(
            0, "the model has no traffic now: nothing can be told of how long this takes"
        )
    proves = any(isinstance(s, Analyse) or (isinstance(s, Promote) and s.proof) for s in steps)
    return PlanView(
        model=spec.model,
        version=spec.version,
        stable=stable,
        strategy=spec.strategy,
        steps=tuple(plans),
        shortest_seconds=total,
        with_proof_seconds=total + proof if told and (per_second > 0 or not proves) else None,
        requests_per_second=per_second,
        error_rate=rate,
        false_alarm=spec.alpha,
        regression=regression,
        warnings=tuple(warnings),
        spec=dict(body),
    )


def _stay(following: tuple[Step, ...], per_second: float, weight: int) -> float:
    """Seconds until the next change of weight, at the least."""
    seconds = 0.0
    for step in following:
        if isinstance(step, SetWeight | Mirror | Pair | Promote | Adapt):
            break
        if isinstance(step, Hold):
            seconds += step.seconds
        elif isinstance(step, Requests) and per_second > 0:
            seconds += step.count / (per_second * max(weight, 1) / WHOLE) if weight else 0.0
    return seconds


def _planned(
    spec: RolloutSpec, step: Step, weight: int, per_second: float, base: float, worse: float
) -> tuple[StepPlan, float, float | None]:
    """The step, its least seconds, and the seconds that its proof takes beyond (None: unknown)."""
    share = 100.0 if isinstance(step, Promote | Bake) else weight / 100
    if isinstance(step, Hold | Bake):
        return StepPlan(label(step), kind(step), share, step.seconds), step.seconds, 0.0
    if isinstance(step, Requests):
        rate = per_second * (weight / WHOLE if weight else 1.0)
        seconds = step.count / rate if rate > 0 else None
        plan = StepPlan(label(step), kind(step), share, seconds or 0.0, step.count)
        return plan, seconds or 0.0, 0.0 if seconds is not None else None
    if isinstance(step, Approval):
        return StepPlan(label(step), kind(step), share, 0.0), 0.0, 0.0
    gate = isinstance(step, Analyse) and not step.metric
    if not gate or not 0 < weight < WHOLE:
        return StepPlan(label(step), kind(step), share, 0.0), 0.0, 0.0
    requests = _to_prove(spec, weight, base)
    seconds = requests / per_second if per_second > 0 and requests is not None else None
    by_latency = latency_seconds(spec, weight, per_second)
    if seconds is not None and by_latency > seconds:  # every guardrail must be shown
        seconds = by_latency if math.isfinite(by_latency) else None
    warning = ""
    if seconds is not None and seconds > spec.deadline_seconds:
        warning = (
            f"proof takes about {spoken(seconds)} at the current traffic, and the deadline is "
            f"{spoken(spec.deadline_seconds)}: raise the weight, widen the margins, or use shadow"
        )
    if weight > HALF and _compares_latency(spec):
        warning = "latency cannot be compared above 50 %: put a step of at most 50 % before it"
    return StepPlan(label(step), kind(step), share, 0.0, requests, None, warning), 0.0, seconds


def _seeing(
    plan: StepPlan,
    spec: RolloutSpec,
    step: Step,
    weight: int,
    seconds: float,
    per_second: float,
    base: float,
    worse: float,
) -> StepPlan:
    """A change of weight with what can be seen until the next."""
    requests = math.ceil(seconds * per_second)
    if isinstance(step, Mirror | Pair):
        # Both see each request: it tells as much as two of an even split.
        share = step.share / WHOLE if isinstance(step, Mirror) else 1.0
        even = power.requests_to_detect(0.5, base, worse, spec.alpha)
        needed = _whole(even / 2 / max(share, 1e-4))
        return StepPlan(plan.label, plan.kind, weight / 100, seconds, needed)
    if not 0 < weight < WHOLE:
        return StepPlan(plan.label, plan.kind, weight / 100, seconds)
    rho = weight / WHOLE
    needed = _whole(power.requests_to_detect(rho, base, worse, spec.alpha))
    chance = power.chance_to_detect(requests, rho, base, worse, spec.alpha) if requests else None
    warning = ""
    if chance is not None and chance < 0.1 and needed is not None:
        warning = (
            f"at {per_second:.3g} requests/s it sees {requests:,} requests, and needs about "
            f"{needed:,} to notice errors of {base * 100:.3g} % rising to {worse * 100:.3g} %: "
            "it protects only from what is clearly broken"
        )
    return StepPlan(plan.label, plan.kind, weight / 100, seconds, needed, chance, warning)


def _whole(requests: float) -> int | None:
    """None for what no number of requests can show."""
    return math.ceil(requests) if math.isfinite(requests) else None


def _compares_latency(spec: RolloutSpec) -> bool:
    return any(
        each.metric.startswith("latency") and each.max_ratio is not None and not each.dry_run
        for each in spec.guardrails
    )


def _to_prove(spec: RolloutSpec, weight: int, base: float) -> int | None:
    """Requests until errors are shown to be within the margin, if both arms are alike."""
    rho = weight / WHOLE
    found = []
    for guardrail in spec.guardrails:
        if guardrail.metric != "error_rate" or guardrail.dry_run:
            continue
        if guardrail.max_ratio is not None and guardrail.max_ratio > 1.0:
            found.append(power.requests_to_prove(rho, base, guardrail.max_ratio, spec.alpha))
        if guardrail.max_increase:
            found.append(_to_prove_increase(rho, base, guardrail.max_increase, spec.alpha))
    return _whole(min(found)) if found else 0


def _to_prove_increase(rho: float, base: float, increase: float, alpha: float) -> float:
    """By the additive bets: their growth per request is at best increase^2 / (2 variance)."""
    variance = base * (1 - base) / (rho * (1 - rho)) + increase**2
    bound = increase / (increase + max((1 - base) / rho, base / (1 - rho)))
    growth = max(increase**2 / (2 * variance) * 0.8, 0.5 * bound * increase)
    return (math.log(1 / alpha) + math.log(12)) / min(growth, 0.95 * bound * 2 or growth)
