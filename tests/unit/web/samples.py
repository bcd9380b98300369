"""Rollouts as a server would tell of them, for tests of how they are shown."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from hotswap.core.evidence import Arm, Stage
from hotswap.core.rollout_views import (
    ArmView,
    HistoryView,
    JournalView,
    MetricView,
    RolloutView,
    StepView,
)

HOSTILE = '<script>alert(1)</script> [bold]b[/bold] | `x` ![a](b) \x1b[31m "q" & \u202e'
BEGAN = 1_700_000_000.0
WHY = (
    "v2 is worse in error_rate: evidence 37:1 against 'no worse' (needed 20:1), after 412 requests"
)

STEPS = (
    StepView("candidate at 5 %", "set_weight", "done", 5.0),
    StepView("hold 5 min", "hold", "done", 5.0, 300.0),
    StepView("candidate at 25 %", "set_weight", "done", 25.0),
    StepView("500 requests", "requests", "current", 25.0, 0.0, 500),
    StepView("proof that it is no worse", "analyse", "waiting", 25.0),
    StepView("promote", "promote", "waiting", 100.0),
    StepView("bake 10 min", "bake", "waiting", 100.0, 600.0),
)


def metric(name: str = "error_rate", **changes: Any) -> MetricView:
    """A metric in the middle of a rollout."""
    view = MetricView(
        name,
        {
            "stable": ArmView("v1", 12034, 62, 0.00515),
            "candidate": ArmView("v2", 412, 17, 0.0413),
        },
        8.01,
        (1.92, 33.4),
        12446,
        1.5,
        37.2,
        "fail",
        proof=0.4,
        sentence="v2 fails 8 times as often as v1.",
    )
    return msgspec.structs.replace(view, **changes)


def _latency(name: str, stable: float, candidate: float, proof: float) -> MetricView:
    arms = {
        "stable": ArmView("v1", 640, None, stable),
        "candidate": ArmView("v2", 412, None, candidate),
    }
    ratio = candidate / stable
    ends = (ratio * 0.8, math.inf if proof < 1 else ratio * 1.3)
    verdict = "pass" if proof >= 20 else "insufficient"
    return MetricView(name, arms, ratio, ends, 1052, 1.2, 1.1, verdict, proof=proof)


METRICS = (
    metric(),
    _latency("latency_p50", 1.91, 1.97, 4.1),
    _latency("latency_p99", 12.4, 13.1, 0.6),
    metric(
        "invalid_rate",
        arms={"stable": ArmView("v1", 12034, 0, 0.0), "candidate": ArmView("v2", 412, 0, 0.0)},
        estimate=None,
        interval=None,
        evidence=1.0,
        proof=22.5,
        verdict="pass",
        sentence="",
        margin=0.005,
        comparison="difference",
    ),
    metric(
        "disagreement",
        arms={"candidate": ArmView("v2", 412, 12, 0.029)},
        estimate=0.029,
        interval=(0.015, 0.051),
        evidence=0.0,
        verdict="pass",
        sentence="",
        margin=0.1,
        comparison="level",
        role="tripwire",
        dry_run=True,
    ),
)


def rollout(**changes: Any) -> RolloutView:
    """A canary that was rolled back."""
    view = RolloutView(
        id="r-12",
        model="fraud",
        version="v2",
        stable="v1",
        strategy="canary",
        phase="RolledBack",
        reason="guardrail",
        message=WHY,
        generation=9,
        attempt=1,
        step=3,
        steps=STEPS,
        weights={"v1": 100.0, "v2": 0.0},
        metrics=METRICS,
        history=(HistoryView(BEGAN, "Preparing", "", "started by ann", 0),),
        counts={
            "candidate_requests": 412,
            "stable_requests": 12034,
            "candidate_failures": 17,
            "fallbacks": 17,
            "pairs": 0,
            "mirrored": 0,
            "dropped": 0,
            "excluded": 3,
        },
        elapsed_seconds=461.0,
        step_seconds=61.0,
        bake_seconds=600.0,
        alpha=0.05,
        final=True,
        created_at=BEGAN,
        updated_at=BEGAN + 461,
        spec={"model": "fraud", "version": "v2", "strategy": "canary", "steps": [5, 25]},
    )
    return msgspec.structs.replace(view, **changes)


def running(**changes: Any) -> RolloutView:
    """The same canary, while it went well."""
    return rollout(
        phase="Progressing",
        reason="",
        message="after 80 requests nothing says that v2 is worse",
        weights={"v1": 75.0, "v2": 25.0},
        final=False,
        metrics=(metric(verdict="insufficient", evidence=1.4),),
        **changes,
    )


def latencies() -> dict[str, Any]:
    """Evidence of one stage, as a journal holds it."""
    stable = {100 + i: round(900 * math.exp(-(((i - 12) / 6) ** 2))) for i in range(40)}
    candidate = {100 + i: round(400 * math.exp(-(((i - 14) / 7) ** 2))) for i in range(46)}
    stage = Stage(
        2,
        2500,
        2500,
        twin=Arm(4000, latency={b: n for b, n in stable.items() if n}),
        candidate=Arm(4000, latency={b: n for b, n in candidate.items() if n}),
    )
    value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(stage))
    return {"evidence": {"stages": [value]}}


def journal() -> list[JournalView]:
    """What was decided on the way to `rollout`."""
    entries = [
        JournalView(1, BEGAN, "started", "Preparing", "", "v2 is loaded", 1, 0, who="ann"),
    ]
    for i in range(1, 45):
        step = 1 if i < 30 else 3
        at = BEGAN + 10.0 * i
        evidence = 1.0 if i < 30 else math.exp((i - 30) * 0.26)
        ratio = 1.1 + (0.0 if i < 30 else (i - 30) * 0.5)
        seen = metric(
            evidence=evidence,
            proof=min(8.0, math.exp(i * 0.06)),
            estimate=ratio,
            interval=(ratio / (1 + 20 / i), ratio * (1 + 40 / i)),
            verdict="insufficient",
        )
        metrics = [seen, _latency("latency_p99", 12.4, 12.4 * (1 + 0.3 / i), math.exp(i * 0.02))]
        record = {
            "metrics": msgspec.to_builtins(metrics),
            "after": {"exposure": {"stage": 1, "weight": 500 if step == 1 else 2500}},
        }
        message = f"after {i // 10 * 10} requests nothing says that v2 is worse"
        entries.append(
            JournalView(i + 1, at, "decided", "Progressing", "", message, 2, step, record=record)
        )
    entries.append(
        JournalView(
            46, BEGAN + 455, "commanded", "Paused", "user", "paused", 8, 3, "ann", "pause", "lunch"
        )
    )
    record = {"metrics": msgspec.to_builtins(list(METRICS)), "before": latencies()}
    entries.append(
        JournalView(
            47, BEGAN + 460, "decided", "RollingBack", "guardrail", WHY, 9, 3, record=record
        )
    )
    entries.append(
        JournalView(48, BEGAN + 461, "decided", "RolledBack", "guardrail", WHY, 9, 3, record={})
    )
    return entries
