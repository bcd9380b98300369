"""Why, in a sentence. Pure."""

from __future__ import annotations

import math

from hotswap.core.analysis import Analysis, Measured
from hotswap.core.rollout import Rollout

_NAMES = {
    "error_rate": "errors",
    "invalid_rate": "invalid outputs",
    "latency": "latency",
    "sample_ratio": "the split",
    "prediction_drift": "predictions",
    "input_drift": "inputs",
}


def odds(log_evidence: float) -> str:
    """Log evidence as people say it.

    >>> odds(math.log(37)), odds(0.0), odds(900.0)
    ('37:1', '1:1', 'over a billion to 1')
    """
    if log_evidence > math.log(1e9):
        return "over a billion to 1"
    value = math.exp(log_evidence)
    return f"{value:,.0f}:1" if value >= 10 else f"{value:.2g}:1"


def evidence_so_far(rollout: Rollout, analysis: Analysis) -> str:
    """What is seen, with how much of it, and what is still missing.

    A sentence that names the strongest reason: for going back if there is one, else for going
    on, else what must still be shown.
    """
    stages = rollout.evidence.stages
    ours = sum(stage.candidate.requests for stage in stages)
    paired = sum(stage.pairs.total for stage in stages)
    version = rollout.spec.version
    amount = f"{ours:,} requests" if ours or not paired else f"{paired:,} pairs"
    needed = odds(math.log(1.0 / rollout.spec.alpha))
    if analysis.labelled:
        amount += f" and {rollout.evidence.labels.labelled:,} labels"
    if analysis.failed:
        strongest = max(
            (m for m in analysis.metrics if not m.dry_run and m.name != "sample_ratio"),
            key=lambda m: m.against,
        )
        return (
            f"{version} is worse in {analysis.failed}: evidence {odds(analysis.against)} against "
            f"'no worse' (needed {needed}), after {amount}; {_counts(rollout, strongest)}"
        )
    if analysis.proven and (ours or paired):
        return f"{version} is shown to be no worse, after {amount}"
    if not ours and not paired:
        return f"no request of {version} was counted yet"
    waiting = ", ".join(analysis.missing[:4])
    worst = max((m.against for m in analysis.metrics if not m.dry_run), default=0.0)
    said = (
        f"after {amount} nothing says that {version} is worse (evidence {odds(worst)} of {needed})"
    )
    return f"{said}; still to be shown: {waiting}" if waiting else said


def _counts(rollout: Rollout, metric: Measured) -> str:
    stages = rollout.evidence.stages
    paired = [stage.pairs for stage in stages if stage.pairs.total]
    if metric.name in ("error_rate", "invalid_rate") and not any(
        s.weight for s in stages if not s.pair
    ):
        worse, better = sum(p.worse for p in paired), sum(p.better for p in paired)
        return f"of the pairs it alone failed {worse}, stable alone {better}"
    if metric.name == "error_rate":
        failed = sum(stage.candidate.failed for stage in stages)
        stable = sum(stage.stable.failed for stage in stages)
    elif metric.name == "invalid_rate":
        failed = sum(stage.candidate.invalid for stage in stages)
        stable = sum(stage.stable.invalid for stage in stages)
    else:
        return (
            f"the strongest is {_NAMES.get(metric.name, metric.name)} with {odds(metric.against)}"
        )
    ours = sum(stage.candidate.requests for stage in stages)
    theirs = sum(stage.stable.requests for stage in stages)
    what = _NAMES[metric.name]
    return f"{what}: {failed:,} of {ours:,} against stable's {stable:,} of {theirs:,}"
