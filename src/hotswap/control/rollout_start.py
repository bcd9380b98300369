"""A new rollout's value, from what is asked and what stable did until now. Pure, but for its salt."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import msgspec

from hotswap.core.evidence import Evidence
from hotswap.core.histogram import quantile
from hotswap.core.plan import compile_steps
from hotswap.core.rollout import Rollout, Status
from hotswap.core.stats import ModelStats
from hotswap.core.strategy import RolloutSpec

#: A candidate's budget: so many times stable's p99, within bounds.
_TIMES = 10.0
_LEAST_MS = 100.0
_MOST_MS = 5000.0
_UNKNOWN_MS = 1000.0


class Traffic(msgspec.Struct, frozen=True):
    """Stable's unpinned requests so far. ``p99_ms`` None: none was answered."""

    requests: int
    failed: int
    invalid: int
    p99_ms: float | None
    per_second: float = 0.0

    @property
    def error_rate(self) -> float:
        """Failures of any kind by requests, 0 without any."""
        return (self.failed + self.invalid) / self.requests if self.requests else 0.0


def traffic_of(stats: Iterable[ModelStats], model: str, version: str) -> Traffic:
    """A version's counters as stable."""
    requests = failed = invalid = 0
    latency: dict[int, int] = {}
    for each in stats:
        if (each.model, each.version, each.role) != (model, version, "stable"):
            continue
        bad = {kind: n for kind, n in each.errors.items() if kind not in ("cancelled", "overload")}
        invalid += bad.pop("invalid_output", 0)
        failed += sum(bad.values())
        requests += each.success + failed + invalid
        for bound, count in each.latency.items():
            latency[bound] = latency.get(bound, 0) + count
    p99 = quantile(latency, 0.99)
    return Traffic(requests, failed, invalid, None if p99 is None else p99 / 1e6)


def begun(
    id: str,
    spec: RolloutSpec,
    stable: str,
    instances: int,
    stats: Iterable[ModelStats],
    at: float,
    key: str,
    *,
    queued: bool,
) -> Rollout:
    """A rollout at its beginning. What it is compared by is frozen here."""
    before = traffic_of(stats, spec.model, stable)
    p99 = before.p99_ms
    budget = spec.budget_ms
    if budget is None:
        budget = _UNKNOWN_MS if p99 is None else min(_MOST_MS, max(_LEAST_MS, _TIMES * p99))
    fresh = secrets.token_hex(8) if spec.seed is None else f"{spec.seed}.1"
    state, message = (
        ("queued", "another rollout of the model runs")
        if queued
        else (
            "preparing",
            f"{spec.version} is being loaded",
        )
    )
    return Rollout(
        id=id,
        spec=spec,
        steps=compile_steps(spec),
        status=Status(
            state=state, reason="queued" if queued else "hosts", message=message, salt=fresh
        ),
        stable=stable,
        evidence=Evidence(
            error_mean=_frozen(before.failed, before.requests),
            invalid_mean=_frozen(before.invalid, before.requests),
        ),
        budget_ms=budget,
        reserve_ms=10.0 if p99 is None else max(10.0, 2 * p99),
        instances=instances,
        created_at=at,
        updated_at=at,
        idempotency_key=key,
    )


def _frozen(failed: int, requests: int) -> float:
    """A rate to compare by: any value is valid, a good one finds more."""
    return min(0.5, (failed + 0.5) / (requests + 500.0))
