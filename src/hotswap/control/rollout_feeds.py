"""What rollouts are told beside workers' counts: operational counters, and external readings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from hotswap.control.rollout_run import Run
from hotswap.control.rollout_start import Traffic, traffic_of
from hotswap.core.analysis import Reading
from hotswap.core.stats import ModelStats
from hotswap.core.strategy import Guardrail, RolloutSpec
from hotswap.errors import BadInput, HotswapError, MetricsUnavailable
from hotswap.ports import Clock, MetricSource

_READ_SECONDS = 10.0
_STATS_SECONDS = 1.0


class Feeds:
    """``stats`` gives the operational counters; ``sources`` the metric sources by name."""

    def __init__(
        self,
        stats: Callable[[], list[ModelStats]],
        sources: Mapping[str, MetricSource],
        clock: Clock,
        started_at: float,
    ) -> None:
        self._stats = stats
        self._sources = sources
        self._clock = clock
        self._started_at = started_at
        self._known: dict[tuple[str, str], list[ModelStats]] = {}
        self._known_at: float | None = None
        self._traffic: dict[str, tuple[float, Traffic]] = {}

    # --- operational counters

    def fresh(self) -> list[ModelStats]:
        """All counters as they are now."""
        return self._stats()

    def stats(self, model: str, version: str) -> list[ModelStats]:
        """A version's counters, at most a second old: reading them costs, and many may ask."""
        now = self._clock.monotonic()
        if self._known_at is None or now - self._known_at >= _STATS_SECONDS:
            self._known_at = now
            self._known = {}
            for each in self._stats():
                self._known.setdefault((each.model, each.version), []).append(each)
        return self._known.get((model, version), [])

    def served(self, model: str, version: str) -> tuple[int, int]:
        """(failures, requests) of a version as stable so far."""
        failed = total = 0
        for each in self.stats(model, version):
            if each.role == "stable":
                bad = sum(n for kind, n in each.errors.items() if kind != "cancelled")
                failed, total = failed + bad, total + each.success + bad
        return failed, total

    def traffic(self, model: str, stable: str) -> Traffic:
        """Requests a second and failures of stable, over the time since they were last asked for
        (at most some minutes), else since the server began.
        """
        now = self._clock.monotonic()
        total = traffic_of(self.stats(model, stable), model, stable)
        before = self._traffic.get(model)
        if before is None or not 1.0 <= now - before[0] <= 600.0:
            uptime = max(1.0, self._clock.wall() - self._started_at)
            return msgspec.structs.replace(total, per_second=total.requests / uptime)
        seconds = now - before[0]
        per_second = max(0, total.requests - before[1].requests) / seconds
        return msgspec.structs.replace(total, per_second=per_second)

    def sample(self, actives: Iterable[tuple[str, str]]) -> None:
        """Once in a while, of (model, active version): so that a plan can tell the traffic of the
        last minute.
        """
        now = self._clock.monotonic()
        for model, active in actives:
            before = self._traffic.get(model)
            if before is None or now - before[0] > 30.0:
                self._traffic[model] = (now, traffic_of(self.stats(model, active), model, active))

    # --- external readings

    def missing(self, spec: RolloutSpec) -> set[str]:
        """Metric sources that it asks and nobody configured."""
        return {each.source for each in spec.guardrails if each.source} - set(self._sources)

    async def try_queries(self, spec: RolloutSpec) -> None:
        """Raise `BadInput` for a query that is wrong. An outage now is no reason to refuse."""
        with contextlib.suppress(MetricsUnavailable):
            for guardrail in spec.guardrails:
                if guardrail.query:
                    await self._sources[guardrail.source].read(guardrail.query)

    def read_due(self, runs: Iterable[Run]) -> None:
        """Begin to read again what was read some seconds ago; nothing waits for it."""
        now = self._clock.monotonic()
        for run in runs:
            guardrails = [each for each in run.rollout.spec.guardrails if each.source]
            if guardrails and now >= run.read_at:
                run.read_at = now + _READ_SECONDS
                run.begin("readings", self._read(run, guardrails))

    async def _read(self, run: Run, guardrails: Sequence[Guardrail]) -> None:
        """Side by side: one that cannot be reached keeps no other waiting."""
        await asyncio.gather(*(self._read_one(run, guardrail) for guardrail in guardrails))

    async def _read_one(self, run: Run, guardrail: Guardrail) -> None:
        source = self._sources.get(guardrail.source)
        try:
            if source is None:
                raise BadInput(f"no {guardrail.source} is configured")
            value = await source.read(guardrail.query or run.rollout.spec.model)
            reading = Reading(value, "" if value is not None else "the query gave no data")
        except HotswapError as exc:
            reading = Reading(None, str(exc))
        run.readings[guardrail.metric] = reading
        run.read_then[guardrail.metric] = self._clock.monotonic()
