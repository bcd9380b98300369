"""What Prometheus is told of drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from hotswap.core.drift_views import DriftView

#: Columns of a model that are told: those that alarmed, then the farthest.
MOST: Final = 200


def drift_families(drifts: Sequence[DriftView]) -> list[Metric]:
    """``drifts``: each model's, columns in the order of what matters most."""
    distance = GaugeMetricFamily(
        "hotswap_drift_distance",
        "How far a column of the records is from its frozen reference, from 0 to 1.",
        labels=("model", "column"),
    )
    alarmed = GaugeMetricFamily(
        "hotswap_drift_alarmed",
        "1 for a column that has drifted from its frozen reference, else 0.",
        labels=("model", "column"),
    )
    for view in drifts:
        for each in view.columns[:MOST]:
            if each.distance is not None:
                distance.add_metric((view.model, each.column), each.distance)
            alarmed.add_metric((view.model, each.column), float(each.alarmed_since is not None))
    return [distance, alarmed]
