"""What Prometheus is told of rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from hotswap.core.rollout_views import RolloutView


def rollout_families(
    rollouts: Sequence[RolloutView], ended: Mapping[tuple[str, str, str, str], int]
) -> list[Metric]:
    """``rollouts``: each model's latest; ``ended`` counts by (model, strategy, phase, reason)."""
    phase = GaugeMetricFamily(
        "hotswap_rollout_phase",
        "1 for the phase that each model's latest rollout is in.",
        labels=("model", "rollout", "phase"),
    )
    weight = GaugeMetricFamily(
        "hotswap_rollout_weight",
        "Share of the requests, from 0 to 1, that each version of a running rollout answers.",
        labels=("model", "version"),
    )
    for view in rollouts:
        phase.add_metric((view.model, view.id, view.phase), 1.0)
        if not view.final:
            for version, percent in view.weights.items():
                weight.add_metric((view.model, version), percent / 100)
    total = CounterMetricFamily(
        "hotswap_rollouts",
        "Rollouts that ended, by how and why.",
        labels=("model", "strategy", "result", "reason"),
    )
    for labels, count in sorted(ended.items()):
        total.add_metric(labels, count)
    return [phase, weight, total]
