"""The plots of a rollout's account. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hotswap.core.rollout_views import JournalView, MetricView, RolloutView
from hotswap.web import phrases, report_data
from hotswap.web.plots import BarChart, Limit, LineChart, Series
from hotswap.web.report_data import Trace

_NO_SMALLER = 1e-3
_NO_LARGER = 1e9


@dataclass(frozen=True)
class Plot:
    """A chart, the short name of its file, and the text that says what it shows."""

    name: str
    title: str
    svg: str
    text: str


@dataclass(frozen=True)
class Plots:
    """All of them. ``evidence``: one list a metric, under the metric's name."""

    weights: Plot | None
    evidence: tuple[tuple[str, tuple[Plot, ...]], ...]
    latency: tuple[Plot, ...]

    def every(self) -> list[Plot]:
        """In the order in which they are shown."""
        first = [self.weights] if self.weights else []
        return [*first, *(p for _, plots in self.evidence for p in plots), *self.latency]


def draw(view: RolloutView, journal: Sequence[JournalView]) -> Plots:
    """Every plot that there is data for."""
    points = report_data.weights(view, journal)
    traces = report_data.traces(view, journal)
    ends = [at for at, _ in points] + [at for trace in traces for at, _ in trace.points]
    unit = report_data.unit_of(max(ends, default=0.0))
    evidence = []
    for index, trace in enumerate(traces, 1):
        if len(trace.points) > 1:
            course = report_data.course(view, journal, trace.name)
            drawn = (_odds(index, trace, unit, course), _estimate(index, trace, unit))
            evidence.append((trace.name, tuple(plot for plot in drawn if plot is not None)))
    return Plots(_weights(view, points, unit), tuple(evidence), tuple(_latency(view, journal)))


def _weights(
    view: RolloutView, points: Sequence[tuple[float, float]], unit: tuple[str, float]
) -> Plot | None:
    if len(points) < 2:
        return None
    name, size = unit
    share = [(at / size, weight) for at, weight in points]
    rest = [(at / size, 100 - weight) for at, weight in points]
    title = "Share of the requests, by version"
    text = f"{view.version}: {report_data.weight_sentence(points)}"
    chart = LineChart(
        title,
        text,
        (
            Series(phrases.clean(view.stable or "stable"), rest, "stable", stepped=True),
            Series(phrases.clean(view.version), share, "candidate", stepped=True),
        ),
        f"{name} since the start",
        "percent",
        low=0.0,
        high=100.0,
    )
    return Plot("weights", title, chart.svg(), text)


Course = tuple[list[tuple[float, float]], list[tuple[float, float]]]


def _odds(index: int, trace: Trace, unit: tuple[str, float], course: Course) -> Plot | None:
    last = trace.points[-1][1]
    if not any(m.evidence > 0 or m.proof > 0 for _, m in trace.points):
        return None
    name, size = unit
    against = [(at / size, _clipped(odds)) for at, odds in course[0]]
    proof = [(at / size, _clipped(odds)) for at, odds in course[1]]
    if len(against) < len(trace.points):  # a short one: the decisions tell more
        against = [(at / size, _clipped(metric.evidence)) for at, metric in trace.points]
        proof = [(at / size, _clipped(metric.proof)) for at, metric in trace.points]
    title = f"{trace.name}: evidence"
    text = (
        f"Odds over time. At the end {phrases.odds(last.evidence)} against {trace.name}, and "
        f"{phrases.odds(last.proof)} for its being within the margin; {phrases.odds(last.needed)} "
        "decides."
    )
    lines = [Series("against the candidate", against, "bad")]
    if any(metric.proof > 0 for _, metric in trace.points):
        lines.append(Series("for no worse", proof, "good"))
    limit = Limit(f"decides ({phrases.odds(last.needed)})", max(last.needed, _NO_SMALLER))
    chart = LineChart(
        title, text, lines, f"{name} since the start", "odds to one", (limit,), log=True, low=1.0
    )
    return Plot(f"evidence-{index}", title, chart.svg(), text)


def _estimate(index: int, trace: Trace, unit: tuple[str, float]) -> Plot | None:
    name, size = unit
    last = trace.points[-1][1]
    scale, y_label = _unit(last)
    points = [
        (at / size, None if metric.estimate is None else metric.estimate * scale)
        for at, metric in trace.points
    ]
    if not any(y is not None for _, y in points):
        return None
    band = [
        (at / size, low * scale, high * scale)
        for at, metric in trace.points
        for low, high in [metric.interval or (None, None)]
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    ]
    limits = []
    if last.margin is not None:
        limits.append(Limit(f"margin ({phrases.compared(last, last.margin)})", last.margin * scale))
    title = f"{trace.name}: estimate"
    text = (
        f"At the end {phrases.compared(last, last.estimate)}, interval {phrases.interval(last)}, "
        f"margin {phrases.compared(last, last.margin)}."
    )
    chart = LineChart(
        title,
        text,
        (Series("estimate and interval", points, "candidate", _calm(points, band, limits)),),
        f"{name} since the start",
        y_label,
        limits,
    )
    return Plot(f"estimate-{index}", title, chart.svg(), text)


def _calm(
    points: Sequence[tuple[float, float | None]],
    band: Sequence[tuple[float, float, float]],
    limits: Sequence[Limit],
) -> list[tuple[float, float, float]]:
    """The band cut to what leaves the line readable: early intervals span anything."""
    ys = [y for _, y in points if y is not None] + [limit.y for limit in limits]
    ys += band[-1][1:] if band else ()
    low, high = min(ys), max(ys)
    room = max(high - low, 1e-9)
    return [(x, max(a, low - room), min(b, high + room)) for x, a, b in band]


def _unit(metric: MetricView) -> tuple[float, str]:
    if metric.comparison == "ratio":
        return 1.0, "candidate / stable"
    if metric.name.startswith("latency"):
        return 1.0, "ms"
    if metric.name.endswith("_rate") or metric.name in ("disagreement", "sample_ratio"):
        return 100.0, "percentage points" if metric.comparison == "difference" else "percent"
    return 1.0, metric.comparison


def _latency(view: RolloutView, journal: Sequence[JournalView]) -> list[Plot]:
    names = [(phrases.clean(view.stable or "stable"), "stable"), (view.version, "candidate")]
    plots = []
    groups = report_data.quantiles(report_data.latest(view, journal))
    if groups:
        title = "Latency, by quantile"
        text = "; ".join(
            f"{name}: stable {phrases.number(a)} ms, candidate {phrases.number(b)} ms"
            for name, (a, b) in groups
        )
        chart = BarChart(title, text, names, groups, "ms")
        plots.append(Plot("latency-quantiles", title, chart.svg(), text))
    bars = report_data.histogram(journal)
    if bars:
        title = "Latency, as it is distributed"
        text = (
            f"Shares of {names[0][0]}'s and {names[1][0]}'s requests, by time from "
            f"{phrases.number(bars[0][0])} to {phrases.number(bars[-1][0])} ms, in the last stage."
        )
        columns: list[tuple[str, list[float | None]]] = [
            (phrases.number(bound), [stable, candidate]) for bound, stable, candidate in bars
        ]
        chart = BarChart(
            title, text, names, columns, "percent", crowded=True, x_label="at most … ms"
        )
        plots.append(Plot("latency-histogram", title, chart.svg(), text))
    return plots


def _clipped(odds: float) -> float:
    """Finite, for a logarithmic axis."""
    return min(max(odds, _NO_SMALLER), _NO_LARGER)
