"""What a rollout's journal shows over time: phases, weights, evidence, latency. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from hotswap.core.evidence import Stage
from hotswap.core.rollout_views import JournalView, MetricView, RolloutView
from hotswap.core.routing import WHOLE
from hotswap.web import phrases
from hotswap.web.reading import read_metric

#: Phases in which the candidate has no traffic whatever its step says, and all of it.
_NONE: Final = ("Preparing", "RollingBack", "RolledBack", "Failed", "Completed")
_ALL: Final = ("Baking", "Healthy")
_QUANTILES: Final = ("latency_p50", "latency_p95", "latency_p99")


@dataclass(frozen=True)
class Period:
    """A stretch of one phase, for one reason. ``begin``: seconds since the rollout began."""

    begin: float
    seconds: float | None
    phase: str
    reason: str
    message: str


@dataclass(frozen=True)
class Saying:
    """One decision or command, or several in a row that said the same. ``begin``, ``end``:
    seconds since the rollout began; ``first``, ``last``: their numbers in the journal.
    """

    first: int
    last: int
    begin: float
    end: float
    kind: str
    phase: str
    reason: str
    message: str
    step: int
    who: str
    command: str
    why: str

    @property
    def count(self) -> int:
        """How many entries it stands for."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Trace:
    """One metric over time: (seconds since the rollout began, the metric as it then stood)."""

    name: str
    points: tuple[tuple[float, MetricView], ...]


def origin(view: RolloutView, journal: Sequence[JournalView]) -> float:
    """The Unix time that the others are counted from."""
    return journal[0].at if journal else view.created_at


def periods(view: RolloutView, journal: Sequence[JournalView]) -> list[Period]:
    """The phases in order; from the history if there is no journal. The last has no end if it
    is final.
    """
    start = origin(view, journal)
    source: list[tuple[float, str, str, str]] = [
        (each.at, each.phase, each.reason, each.message) for each in (journal or view.history)
    ]
    changes: list[tuple[float, str, str, str]] = []
    for each in source:
        if not changes or changes[-1][1:3] != each[1:3]:
            changes.append(each)
        else:  # the last sentence of a phase says how it ended
            changes[-1] = (*changes[-1][:3], each[3] or changes[-1][3])
    ends = [each[0] for each in changes[1:]] + [view.updated_at] * bool(changes)
    found = []
    for index, ((at, phase, reason, message), end) in enumerate(zip(changes, ends, strict=True)):
        over = index == len(changes) - 1 and view.final
        lasted = None if over else max(0.0, end - at)
        found.append(Period(max(0.0, at - start), lasted, phase, reason, message))
    return found


def sayings(view: RolloutView, journal: Sequence[JournalView]) -> list[Saying]:
    """Every entry of the journal; neighbours that say the same are one."""
    start = origin(view, journal)
    found: list[Saying] = []
    for each in journal:
        at = max(0.0, each.at - start)
        words = (each.kind, each.phase, each.reason, each.message, each.step)
        before = found[-1] if found else None
        same = (
            before is not None
            and each.kind == "decided"
            and (before.kind, before.phase, before.reason, before.message, before.step) == words
        )
        if before is not None and same:
            begin, first = before.begin, before.first
            found.pop()
        else:
            begin, first = at, each.number
        found.append(
            Saying(first, each.number, begin, at, *words, each.who, each.command, each.why)
        )
    return found


def weights(view: RolloutView, journal: Sequence[JournalView]) -> list[tuple[float, float]]:
    """(seconds, percent of the requests that the candidate answers) after each entry."""
    start = origin(view, journal)
    points = [(max(0.0, each.at - start), _weight(view, each)) for each in journal]
    if points:
        now = view.weights.get(view.version)
        last = points[-1][1] if now is None else now
        points.append((max(points[-1][0], view.updated_at - start), last))
    return points


def traces(view: RolloutView, journal: Sequence[JournalView]) -> list[Trace]:
    """Each metric's course, in the order in which the rollout names them."""
    start = origin(view, journal)
    found: dict[str, list[tuple[float, MetricView]]] = {each.name: [] for each in view.metrics}
    for entry in journal:
        for metric in _metrics(entry.record):
            found.setdefault(metric.name, []).append((max(0.0, entry.at - start), metric))
    end = max(0.0, view.updated_at - start)
    for metric in view.metrics:
        points = found[metric.name]
        if not points or points[-1][1] != metric:
            points.append((max(end, points[-1][0] if points else 0.0), metric))
    return [Trace(name, tuple(points)) for name, points in found.items() if points]


def course(
    view: RolloutView, journal: Sequence[JournalView], name: str
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """A metric's odds against the candidate and its proof, as (seconds since the rollout began,
    odds), in the present attempt. Empty where nothing was kept but the decisions.
    """
    began = max(0.0, view.updated_at - origin(view, journal) - view.elapsed_seconds)
    points = [point for point in view.series if point.attempt == view.attempt]
    against = [(began + p.elapsed, p.against[name]) for p in points if name in p.against]
    proof = [(began + p.elapsed, p.proof.get(name, 1.0)) for p in points if name in p.against]
    return against, proof


def latest(view: RolloutView, journal: Sequence[JournalView]) -> list[MetricView]:
    """The metrics as they stand, or as they were last decided by if it is over."""
    if view.metrics:
        return list(view.metrics)
    kept = (list(_metrics(entry.record)) for entry in reversed(journal))
    return next(filter(None, kept), [])


def quantiles(metrics: Sequence[MetricView]) -> list[tuple[str, list[float | None]]]:
    """(quantile, [stable's, candidate's] milliseconds) of those that were measured."""
    found = []
    for metric in metrics:
        if metric.name in _QUANTILES:
            arms = [metric.arms.get(role) for role in ("stable", "candidate")]
            values = [arm.value if arm else None for arm in arms]
            if any(value is not None for value in values):
                found.append((metric.name.removeprefix("latency_"), values))
    return sorted(found)


def histogram(
    journal: Sequence[JournalView],
) -> list[tuple[float, float, float]]:
    """(bucket's upper bound in ms, stable's share, candidate's share in percent) of the latest
    entry that has latencies of both arms; several fine buckets are one bar.
    """
    for entry in reversed(journal):
        arms = _latencies(entry.record)
        if arms is not None:
            return _bars(*arms)
    return []


def unit_of(seconds: float) -> tuple[str, float]:
    """The unit in which a time axis of this length reads best, and its seconds.

    >>> unit_of(90), unit_of(1800), unit_of(86400)
    (('seconds', 1.0), ('minutes', 60.0), ('hours', 3600.0))
    """
    if seconds < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def _weight(view: RolloutView, entry: JournalView) -> float:
    """What the entry says, else what its phase and step amount to."""
    if entry.phase in _NONE:
        return 0.0
    if entry.phase in _ALL:
        return 100.0
    exposure = _exposure(entry.record.get("after"))
    weight = exposure.get("weight") if exposure else None
    if isinstance(weight, int):
        return 100.0 * weight / WHOLE
    if 0 <= entry.step < len(view.steps):
        return view.steps[entry.step].weight
    return 0.0


def _exposure(after: object) -> Mapping[str, Any] | None:
    """What requests were to see of the candidate, by a status or by a rollout that holds one."""
    if not isinstance(after, Mapping):
        return None
    exposure = after.get("exposure")
    return exposure if isinstance(exposure, Mapping) else _exposure(after.get("status"))


def _metrics(record: Mapping[str, Any]) -> Iterator[MetricView]:
    values = record.get("metrics")
    for value in values if isinstance(values, list) else ():
        metric = read_metric(value)
        if metric is not None:
            yield metric


def _latencies(record: Mapping[str, Any]) -> tuple[dict[int, int], dict[int, int]] | None:
    """Bucket counts of the arm that latency is compared with and of the candidate, in the latest
    stage that has both.
    """
    for value in reversed(_stages(record)):
        stage = _stage(value)
        # Hosts of unequal load are not compared, not even in a picture.
        compared = stage.compared if stage is not None else None
        if stage is None or compared is None:
            continue
        stable = compared[1].latency
        if stable and stage.candidate.latency:
            return stable, stage.candidate.latency
    return None


def _stages(value: object) -> list[Any]:
    """The stages of the evidence, wherever the record keeps it."""
    if isinstance(value, Mapping):
        stages = value.get("stages")
        if isinstance(stages, list):
            return stages
        return next((found for each in value.values() if (found := _stages(each))), [])
    return []


def _stage(value: object) -> Stage | None:
    try:
        return msgspec.convert(value, Stage, str_keys=True)
    except msgspec.ValidationError:  # written by another version
        return None


def _bars(
    stable: Mapping[int, int], candidate: Mapping[int, int]
) -> list[tuple[float, float, float]]:
    from hotswap.stats.buckets import TIMEOUT, lower_bound

    used = [bucket for bucket in (*stable, *candidate) if bucket < TIMEOUT]
    if not used:
        return []
    low, high = min(used), min(max(used), TIMEOUT - 1)
    width = max(1, -(-(high - low + 1) // 40))
    bars = []
    for first in range(low, high + 1, width):
        shares = [
            100 * sum(arm.get(b, 0) for b in range(first, first + width)) / sum(arm.values())
            for arm in (stable, candidate)
        ]
        bound = lower_bound(min(first + width, TIMEOUT - 1)) / 1e6
        bars.append((bound, shares[0], shares[1]))
    return bars


def weight_sentence(points: Sequence[tuple[float, float]]) -> str:
    """What a chart of weights shows, for who cannot see it.

    >>> weight_sentence([(0.0, 0.0), (5.0, 5.0), (9.0, 5.0), (10.0, 0.0)])
    'The share went from 0 % over 5 % to 0 %.'
    """
    steps = [weight for i, (_, weight) in enumerate(points) if i == 0 or weight != points[i - 1][1]]
    shown = [phrases.percent(weight) for weight in steps]
    if len(shown) < 2:
        return f"The share stayed at {shown[0]}." if shown else "There is no data."
    between = f" over {', '.join(shown[1:-1])}" if len(shown) > 2 else ""
    return f"The share went from {shown[0]}{between} to {shown[-1]}."
