"""The operational counters of one version in one role, shared by every thread of a program."""

from __future__ import annotations

import threading

from hotswap.core.histogram import bucket, upper_bound
from hotswap.core.stats import ModelStats


class Counters:
    """The operational counters of one (model, version, role)."""

    def __init__(self, model: str, version: str, role: str) -> None:
        self._key = (model, version, role)
        self._lock = threading.Lock()
        self._started = 0
        self._success = 0
        self._rows = 0
        self._success_ns = 0
        self._fail_ns = 0
        self._queue_ns = 0
        self._compute_ns = 0
        self._last = 0
        self._fallbacks = 0
        self._dropped = 0
        self._errors: dict[str, int] = {}
        self._latency: dict[int, int] = {}

    def begin(self) -> None:
        """A request is in flight."""
        with self._lock:
            self._started += 1

    def succeed(self, ns: int, rows: int, queue_ns: int, compute_ns: int, wall_ms: int) -> None:
        """It was answered, ``ns`` nanoseconds after `begin`."""
        at = bucket(ns)
        with self._lock:
            self._success += 1
            self._rows += rows
            self._success_ns += ns
            self._queue_ns += queue_ns
            self._compute_ns += compute_ns
            self._last = wall_ms
            self._latency[at] = self._latency.get(at, 0) + 1

    def fail(self, ns: int, kind: str) -> None:
        """It was not."""
        with self._lock:
            self._fail_ns += ns
            self._errors[kind] = self._errors.get(kind, 0) + 1

    def fell_back(self) -> None:
        """The baseline answers for it."""
        with self._lock:
            self._fallbacks += 1

    def drop(self) -> None:
        """A copy was not sent, for lack of room."""
        with self._lock:
            self._dropped += 1

    def stats(self) -> ModelStats:
        """All of it at one moment."""
        model, version, role = self._key
        with self._lock:
            return ModelStats(
                model=model,
                version=version,
                role=role,
                success=self._success,
                errors=dict(self._errors),
                inferences=self._rows,
                executions=self._success,
                success_ns=self._success_ns,
                fail_ns=self._fail_ns,
                queue_ns=self._queue_ns,
                compute_ns=self._compute_ns,
                inflight=self._started - self._success - sum(self._errors.values()),
                last_inference=self._last,
                latency={upper_bound(at): n for at, n in sorted(self._latency.items())},
                fallbacks=self._fallbacks,
                dropped=self._dropped,
            )


__all__ = ["Counters"]
