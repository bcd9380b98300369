"""How long the proof of latency takes, told beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hotswap.core.preflight import preflight
from hotswap.core.preflight_latency import PER_SECOND, latency_requests, latency_seconds
from hotswap.core.strategy import parse
from hotswap.stats import buckets, latency


@pytest.mark.parametrize(("quantile", "name"), [(0.5, "p50"), (0.95, "p95")])
def test_the_forecast_is_within_twice_of_what_it_takes(quantile: float, name: str) -> None:
    """Equal arms with a log-normal latency, judged by the production formula."""
    rng = np.random.default_rng(5)
    told = latency_requests(quantile, 1.2, 0.05)
    found = []
    for _ in range(30):
        ns = np.exp(rng.normal(math.log(2e6), 0.5, size=(2, int(told * 3))))
        arms = [[buckets.bucket(int(x)) for x in arm] for arm in ns]
        frozen = latency.freeze(dict(zip(*np.unique(arms[0], return_counts=True), strict=True)))
        for n in range(50, int(told * 1.5), max(10, int(told) // 20)):
            counts = [
                {
                    int(b): int(c)
                    for b, c in zip(*np.unique(arm[:n], return_counts=True), strict=True)
                }
                for arm in arms
            ]
            cell = latency.LatencyCell(0.5, counts[0], counts[1])
            if latency.promotion_evidence([cell], frozen, name, 1.2) >= math.log(20):
                found.append(2 * n)
                break
    assert len(found) >= 25
    assert told / 2 <= float(np.median(found)) <= told * 2


def test_time_is_bounded_by_the_traffic_and_by_the_sampling() -> None:
    """A busy model is judged by time; above one half nothing is compared."""
    spec = parse({"model": "m", "version": "v2", "strategy": "canary"})
    busy, idle = latency_seconds(spec, 5_000, 1e4), latency_seconds(spec, 5_000, 2.0)
    assert busy == pytest.approx(latency_requests(0.99, 1.2, 0.05) / PER_SECOND)
    assert idle == pytest.approx(10 * busy)
    assert latency_seconds(spec, 500, 2.0) == pytest.approx(10 * idle)
    assert math.isinf(latency_seconds(spec, 6_000, 1e4))
    errors = parse(
        {
            "model": "m",
            "version": "v2",
            "strategy": "canary",
            "guardrails": [{"metric": "error_rate"}],
        }
    )
    assert latency_seconds(errors, 5_000, 100.0) == 0.0


def test_a_plan_tells_the_slowest_proof() -> None:
    """A busy model shows its errors in seconds and its p99 in minutes: the plan says minutes."""
    body = {"model": "m", "version": "v2", "strategy": "canary", "steps": [{"weight": 50}]}
    spec = parse(body)
    told = preflight(spec, dict(body), "v1", 5_000.0, 0.01)
    assert told.with_proof_seconds is not None
    slowest = latency_seconds(spec, 5_000, 5_000.0)
    assert slowest > 240.0
    assert told.with_proof_seconds == pytest.approx(told.shortest_seconds + slowest)
    above = {**body, "steps": [{"weight": 60}]}
    assert preflight(parse(above), dict(above), "v1", 5_000.0, 0.01).with_proof_seconds is None
