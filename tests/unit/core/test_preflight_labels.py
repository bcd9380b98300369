"""What a plan says of labels: when they count, and how many a proof takes."""

from __future__ import annotations

from typing import Any

import pytest

from hotswap.core.plan import compile_steps
from hotswap.core.preflight_labels import label_warnings, pairs_needed
from hotswap.core.strategy import parse
from hotswap.stats.differences import STEPS, promotion_evidence


def said(strategy: str, **more: Any) -> list[str]:
    """The sentences of such a body."""
    spec = parse({"model": "m", "version": "v2", "strategy": strategy} | more)
    return label_warnings(spec, compile_steps(spec))


def test_a_plan_without_labels_says_nothing() -> None:
    """The default guardrails need none."""
    assert said("champion_challenger") == []
    assert said("canary") == []


def test_when_labels_count_and_how_many_are_needed_is_said() -> None:
    """Fewer for a wider margin."""
    accuracy = {"metric": "accuracy", "max_increase": 0.01}
    first, second = said(
        "champion_challenger", guardrails=[accuracy, {"metric": "error_rate"}],
        label_maturity_hours=2,
    )  # fmt: skip
    assert "accuracy: labels decide" in first
    assert "2 h after" in first
    assert "4,195 labels" in second
    assert pairs_needed(0.02, 0.05) < pairs_needed(0.01, 0.05) / 3


def test_arms_take_more() -> None:
    """A canary with labels is told so; a test's target is named."""
    assert "many times as many" in said("canary", guardrails=[{"metric": "accuracy"}])[1]
    config = {"target_metric": "reward"}
    assert said("ab_test", config=config)[0].startswith("reward: labels decide")


@pytest.mark.parametrize("margin", [0.01, 0.02])
def test_so_many_pairs_are_a_proof(margin: float) -> None:
    """Of equal versions that differ in 5 % of the pairs; and half as many are none."""
    for share, proves in ((1.25, True), (0.5, False)):
        n = int(pairs_needed(margin, 0.05) * share)
        counts = {STEPS: n // 40, -STEPS: n // 40, 0: n - 2 * (n // 40)}
        assert (promotion_evidence(counts, margin) > 2.9957) == proves
