"""Labels for rollouts: counted by a job, stretch by stretch of arrivals, as their time is over."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from hotswap.control.recorded import Recorded
from hotswap.control.rollout_run import Run
from hotswap.core import label_metrics
from hotswap.core.label_evidence import Labels
from hotswap.core.strategy import RolloutSpec
from hotswap.errors import HotswapError
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

#: A stretch is counted so often within the time that a label may take, and at these ends.
_PARTS: Final = 20.0
_OFTEN: Final = 1.0
_SELDOM: Final = 300.0
#: Records are written so long after the answer, at most.
_WRITTEN: Final = 2.0
_COUNTED: Final = ("running", "promoting", "baking")


def keys_of(spec: RolloutSpec) -> tuple[str, ...]:
    """The losses that must be counted for a rollout; none if no label decides it."""
    config = spec.config.get("then_config") or spec.config
    target = config.get("target_metric") or ""
    return label_metrics.needed(spec.guardrails, spec.objectives, target)


class LabelCounting:
    """Of all rollouts."""

    def __init__(self, recorded: Recorded, clock: Clock) -> None:
        self._recorded = recorded
        self._clock = clock
        self._due: dict[str, float] = {}

    def count_due(self, runs: Iterable[Run]) -> None:
        """Begin to count what is due; nothing waits for it."""
        now = self._clock.monotonic()
        for run in runs:
            rollout = run.rollout
            if rollout.status.state not in _COUNTED or run.busy("labels"):
                continue
            if now < self._due.get(rollout.test, 0.0):
                continue
            keys = keys_of(rollout.spec)
            if not keys:
                continue
            maturity = rollout.spec.label_maturity_seconds
            self._due[rollout.test] = now + min(_SELDOM, max(_OFTEN, maturity / _PARTS))
            slack = _WRITTEN + 2.0 * rollout.budget_ms / 1000.0
            until = math.floor(self._recorded.watermark() - maturity - slack)
            labels = rollout.evidence.labels
            since = labels.until or math.floor(rollout.created_at) - 1.0
            if until > since and rollout.evidence.stages:
                run.begin("labels", self._count(run, keys, since, float(until)))

    async def _count(self, run: Run, keys: tuple[str, ...], since: float, until: float) -> None:
        rollout = run.rollout
        before, stages = rollout.evidence.labels, rollout.evidence.stages
        request = {
            "kind": "cohort",
            "root": str(self._recorded.root),
            "location": self._recorded.location,
            "model": rollout.spec.model,
            "cohort": {
                "test": rollout.test,
                "candidate": rollout.spec.version,
                "since": since,
                "until": until,
                "maturity": rollout.spec.label_maturity_seconds,
                "keys": keys,
                "weights": {stage.number: stage.weight for stage in stages},
                "paired": [stage.number for stage in stages if stage.pair or stage.mirror],
            },
            "labels": before,
            "began": rollout.created_at - 1.0,
        }
        try:
            labels = await self._recorded.ticks.run("counting labels", request, Labels)
        except HotswapError as exc:
            log.warning("labels cannot be counted", rollout=rollout.id, reason=str(exc))
            labels = msgspec.structs.replace(before, problem=str(exc))
        now = run.rollout
        if now.test == rollout.test and now.evidence.labels.until == before.until:
            run.become(evidence=msgspec.structs.replace(now.evidence, labels=labels))


__all__ = ["LabelCounting", "keys_of"]
