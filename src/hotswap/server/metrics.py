"""Prometheus metrics over the merged tallies: one snapshot, rendered when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hotswap.core.drift_views import DriftView
from hotswap.core.rollout_views import RolloutView
from hotswap.core.stats import ModelStats
from hotswap.core.views import ModelView
from hotswap.server.metrics_drift import drift_families
from hotswap.server.metrics_rollouts import rollout_families

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
LABELS: Final = ("model", "version", "role")

# Seconds: from half a millisecond, which a small model needs, to the default deadline.
BUCKETS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)


def cumulative(latency: Mapping[int, int]) -> list[tuple[str, float]]:
    """Prometheus buckets, (upper bound in seconds, requests at or below it), up to +Inf.

    ``latency`` maps fine upper bounds in nanoseconds to counts. A fine bucket counts from the
    first standard bound that is not below its own, so no request is ever shown faster than it
    was.

    >>> cumulative({400_000: 2, 700_000: 1})[:2]
    [('0.0005', 2.0), ('0.001', 3.0)]
    """
    fine = sorted(latency.items())
    buckets: list[tuple[str, float]] = []
    total, position = 0, 0
    for bound in BUCKETS:
        while position < len(fine) and fine[position][0] <= round(bound * 1e9):
            total += fine[position][1]
            position += 1
        buckets.append((repr(bound), float(total)))
    buckets.append(("+Inf", float(total + sum(count for _, count in fine[position:]))))
    return buckets


class _Snapshot(Collector):
    """The families of one moment, for a registry of their own."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def render(
    models: Sequence[ModelView],
    stats: Sequence[ModelStats],
    switches: Mapping[tuple[str, str], int],
    switch_seconds: Mapping[str, tuple[int, float]],
    rollouts: Sequence[RolloutView] = (),
    ended: Mapping[tuple[str, str, str, str], int] | None = None,
    drifts: Sequence[DriftView] = (),
    records: Mapping[str, Any] | None = None,
) -> bytes:
    """The text of ``/metrics``.

    ``switches`` counts by (model, result); ``switch_seconds`` is (count, total seconds) by
    model; ``rollouts`` are each model's latest, and ``ended`` counts those that are over by
    (model, strategy, phase, reason); ``drifts`` are each model's. An empty ``models`` (the store cannot be read) leaves only the counters.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        _Snapshot(
            [
                *_traffic(stats),
                *_versions(models),
                *_switches(switches, switch_seconds),
                *rollout_families(rollouts, ended or {}),
                *drift_families(drifts),
                *_records(records),
            ]
        )
    )
    return generate_latest(registry)


def _records(counts: Mapping[str, Any] | None) -> list[Metric]:
    """Nothing where nothing is recorded."""
    if counts is None:
        return []
    told = {
        "hotswap_records": ("lines", "Rows of answered requests that were recorded."),
        "hotswap_labels": ("labels", "Labels and rewards that were recorded."),
        "hotswap_records_dropped": ("dropped", "Requests that found no room to be recorded."),
        "hotswap_records_failed": ("failed", "Rows and labels that could not be written."),
    }
    return [
        CounterMetricFamily(name, text, value=float(counts[count]))
        for name, (count, text) in told.items()
    ]


def _traffic(stats: Sequence[ModelStats]) -> list[Metric]:
    latency = HistogramMetricFamily(
        "model_inference_latency_seconds",
        "Time that answered requests spent waiting for and in the model.",
        labels=LABELS,
    )
    requests = CounterMetricFamily(
        "model_prediction_requests", "Prediction requests, failed ones included.", labels=LABELS
    )
    failures = CounterMetricFamily(
        "model_prediction_errors",
        "Prediction requests that failed, by kind.",
        labels=(*LABELS, "kind"),
    )
    inflight = GaugeMetricFamily(
        "hotswap_inflight_requests", "Requests being answered now.", labels=LABELS
    )
    hits = CounterMetricFamily(
        "hotswap_cache_hits",
        "Requests for a version by its name that found it loaded.",
        labels=LABELS,
    )
    fallbacks = CounterMetricFamily(
        "hotswap_fallbacks",
        "Requests that the baseline answered for this candidate, which failed on them.",
        labels=LABELS,
    )
    dropped = CounterMetricFamily(
        "hotswap_shadow_dropped",
        "Copies of requests that were not sent to this version, for lack of room.",
        labels=LABELS,
    )
    for entry in stats:
        labels = (entry.model, entry.version, entry.role)
        if entry.role == "shadow":
            dropped.add_metric(labels, entry.dropped)
        elif entry.role == "candidate" or entry.fallbacks:
            fallbacks.add_metric(labels, entry.fallbacks)
        seconds = entry.success_ns / 1e9
        latency.add_metric(labels, buckets=cumulative(entry.latency), sum_value=seconds)
        if entry.role == "pinned":
            hits.add_metric(labels, entry.executions)
        requests.add_metric(labels, entry.success + sum(entry.errors.values()))
        inflight.add_metric(labels, entry.inflight)
        for kind, count in sorted(entry.errors.items()):
            failures.add_metric((*labels, kind), count)
    return [latency, requests, failures, inflight, hits, fallbacks, dropped]


def _versions(models: Sequence[ModelView]) -> list[Metric]:
    active = GaugeMetricFamily(
        "model_version_active", "1 for a model's active version, else 0.", labels=LABELS
    )
    load = GaugeMetricFamily(
        "model_load_time_seconds",
        "How long the version's last load took, checks and warm-up included.",
        labels=LABELS,
    )
    memory = GaugeMetricFamily(
        "hotswap_model_memory_bytes",
        "Memory of the version's own processes that they share with no other.",
        labels=LABELS,
    )
    for model in models:
        for version in model.versions:
            labels = (model.name, version.version, version.role)
            active.add_metric(labels, float(version.version == model.active))
            memory.add_metric(labels, version.memory_bytes)
            if version.load_seconds is not None and math.isfinite(version.load_seconds):
                load.add_metric(labels, version.load_seconds)
    return [active, load, memory]


def _switches(
    switches: Mapping[tuple[str, str], int], seconds: Mapping[str, tuple[int, float]]
) -> list[Metric]:
    total = CounterMetricFamily(
        "hotswap_switches", "Switches and rollbacks, by result.", labels=("model", "result")
    )
    for (model, result), count in sorted(switches.items()):
        total.add_metric((model, result), count)
    duration = SummaryMetricFamily(
        "hotswap_switch_duration_seconds",
        "Time from the command to the flip, loading included.",
        labels=("model",),
    )
    for model, (count, spent) in sorted(seconds.items()):
        duration.add_metric((model,), count_value=count, sum_value=spent)
    return [total, duration]
