"""Operational counters of one version, as they are published."""

from __future__ import annotations

import msgspec


class ModelStats(msgspec.Struct, frozen=True):
    """The sums over all workers for one (model, version, role). Times in nanoseconds.

    ``success`` and ``errors`` count requests; ``errors`` is keyed by kind (model, timeout,
    invalid_output, overload, lost, cancelled, memory, unavailable). ``inferences`` counts rows
    that were answered, ``executions`` requests that a host answered. ``latency`` maps a bucket's upper bound in nanoseconds to its
    count (not cumulative). ``last_inference`` is Unix time in milliseconds, 0 if never.
    ``role``: stable, candidate, twin, pinned or shadow (copies off the path). ``fallbacks`` are
    requests that the baseline answered for this candidate, ``dropped`` copies that were not sent.
    """

    model: str
    version: str
    role: str
    success: int = 0
    errors: dict[str, int] = {}
    inferences: int = 0
    executions: int = 0
    success_ns: int = 0
    fail_ns: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    inflight: int = 0
    last_inference: int = 0
    latency: dict[int, int] = {}
    fallbacks: int = 0
    dropped: int = 0
