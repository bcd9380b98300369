"""What labels a rollout will need, told before it begins. Pure."""

from __future__ import annotations

import math
from typing import Final

from hotswap.core.durations import spoken
from hotswap.core.label_metrics import RELATIVE
from hotswap.core.metric_names import LABELLED
from hotswap.core.plan import Mirror, Pair, Step
from hotswap.core.strategy import RolloutSpec

#: Of the pairs, how many are taken to be judged differently: nobody knows before.
_DIFFER: Final = 0.05
#: What a mixture of bets takes beyond the best one, as measured (``docs/decisions.md``).
_MORE: Final = 1.4
_IN_SHARES: Final = ("accuracy", "auc", "brier")


def label_warnings(spec: RolloutSpec, steps: tuple[Step, ...]) -> list[str]:
    """Sentences about the metrics that labels decide; none without any."""
    guardrails = [each for each in spec.guardrails if each.metric in LABELLED]
    names = [each.metric for each in guardrails]
    names += [each.metric for each in spec.objectives if each.metric in LABELLED]
    target = (spec.config.get("then_config") or spec.config).get("target_metric")
    names += [target] if target in LABELLED else []
    if not names:
        return []
    listed = ", ".join(dict.fromkeys(names))
    wait = spoken(spec.label_maturity_seconds)
    said = [f"{listed}: labels decide, and the first count {wait} after their requests"]
    paired = any(isinstance(step, Pair | Mirror) for step in steps)
    for guardrail in guardrails:
        margin = guardrail.max_increase
        if guardrail.metric not in _IN_SHARES or not margin or guardrail.metric in RELATIVE:
            continue
        if paired:
            said.append(
                f"{guardrail.metric}: to prove that at most {margin:g} is lost takes about "
                f"{pairs_needed(margin, spec.alpha):,} labels, if {_DIFFER:.0%} of the pairs are judged "
                "differently and neither version is better"
            )
        else:
            said.append(
                f"{guardrail.metric}: where one version is asked, labels are compared between arms, "
                "which takes many times as many as pairs would (shadow, champion_challenger)"
            )
    return said


def pairs_needed(margin: float, alpha: float, differ: float = _DIFFER) -> int:
    """Labelled pairs until equal versions are proved within a margin of losses in [0, 1].

    ln(1/α) over the growth of the best bet, m²/2d (Kelly; Waudby-Smith & Ramdas, JRSSB 2024), and
    what the mixture takes beyond that.

    >>> pairs_needed(0.01, 0.05)
    4195
    """
    growth = margin**2 / (2.0 * differ)
    return math.ceil(_MORE * math.log(1.0 / alpha) / growth)


__all__ = ["label_warnings", "pairs_needed"]
