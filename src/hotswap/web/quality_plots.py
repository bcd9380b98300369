"""The plots of a report of quality. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hotswap.core.quality_views import Bin, Difference, Point, Quality, Side
from hotswap.web import quality_words as words
from hotswap.web.forest import Forest, Row
from hotswap.web.phrases import clean, number
from hotswap.web.plots import BarChart, Limit, LineChart, Series
from hotswap.web.report_data import unit_of
from hotswap.web.report_plots import Plot

_COLOURS: Final = ("stable", "candidate", "good", "limit", "bad")
_SQUARE: Final = 420
_DAYS: Final = 3 * 86400.0


@dataclass(frozen=True)
class Plots:
    """All of them; None where there is nothing to show."""

    differences: Plot | None
    paths: tuple[Plot, ...]
    calibration: Plot | None
    roc: Plot | None
    residuals: Plot | None
    latency: Plot | None
    coverage: Plot | None
    segments: Plot | None


def draw(quality: Quality) -> Plots:
    """Every plot that there is data for."""
    paths = [_path(each, index) for index, each in enumerate(quality.differences, 1)]
    return Plots(
        _differences(quality),
        tuple(plot for plot in paths if plot is not None),
        _calibration(quality.sides),
        _roc(quality.sides),
        _residuals(quality.sides),
        _latency(quality.sides),
        _coverage(quality),
        _segments(quality),
    )


def colour(index: int) -> str:
    """The colour of a side: stable's, the candidate's, then the others'."""
    return _COLOURS[index % len(_COLOURS)]


def _differences(quality: Quality) -> Plot | None:
    if not quality.differences:
        return None
    rows = []
    for each in quality.differences:
        low, estimate, high = words.oriented(each)
        bounds = words.bounds(each.metric, each.low, each.high)
        tone = {"quiet": "soft"}.get(words.tone(each.better), words.tone(each.better))
        rows.append(Row(words.name(each.metric), low, estimate, high, bounds, tone))
    title = "Differences and what they may be"
    text = "; ".join(f"{row.name}: {row.figures}" for row in rows)
    candidate = clean(quality.candidate)
    chart = Forest(title, text, rows, f"{candidate} is worse", f"{candidate} is better")
    return Plot("differences", title, chart.svg(), text)


def _path(difference: Difference, index: int) -> Plot | None:
    path = [p for p in difference.path if all(map(math.isfinite, (p.low, p.estimate, p.high)))]
    if len(path) < 2:
        return None
    metric = difference.metric
    name, size = _time_unit(path[-1].at - path[0].at)
    scale, first = words.scale(metric), path[0].at
    line = [((p.at - first) / size, p.estimate * scale) for p in path]
    band = [((p.at - first) / size, low * scale, high * scale) for p, low, high in _calm(path)]
    title = f"{words.name(metric)}: difference over time"
    text = (
        f"At the end {words.change(metric, difference.estimate)}, between "
        f"{words.bounds(metric, difference.low, difference.high)}; {words.hint(metric)}."
    )
    chart = LineChart(
        title,
        text,
        (Series("estimate and 95 % bounds", line, "candidate", band),),
        f"{name} since {stamp(first)} UTC",
        words.unit(metric),
        (Limit("no difference", 0.0, "soft"),),
    )
    return Plot(f"path-{index}", title, chart.svg(), text)


def _calm(path: Sequence[Point]) -> list[tuple[Point, float, float]]:
    """The band cut to what leaves the line readable: early bounds span anything."""
    middle = path[len(path) // 2]
    ys = [p.estimate for p in path] + [0.0, path[-1].low, path[-1].high, middle.low, middle.high]
    low, high = min(ys), max(ys)
    room = max(0.2 * (high - low), 1e-12)
    return [(p, max(p.low, low - room), min(p.high, high + room)) for p in path]


def _calibration(sides: Sequence[Side]) -> Plot | None:
    lines = [Series("as it should be", [(0.0, 0.0), (1.0, 1.0)], "soft")]
    told = []
    for index, side in enumerate(sides):
        points = [(b.mean, b.share) for b in side.calibration if b.n and b.share is not None]
        if points:
            lines.append(Series(clean(side.version), sorted(points), colour(index)))
            told.append(f"{clean(side.version)}: {_off(side.calibration)}")
    if not told:
        return None
    title = "Calibration"
    text = f"How often a score came true, by the score. {'; '.join(told)}."
    chart = LineChart(
        title, text, lines, "mean score", "share that is positive", low=0.0, high=1.0,
        height=_SQUARE,
    )  # fmt: skip
    return Plot("calibration", title, chart.svg(), text)


def _off(bins: Sequence[Bin]) -> str:
    known = [b for b in bins if b.n and b.share is not None]
    total = sum(b.n for b in known)
    off = sum(b.n * abs(b.mean - (b.share or 0.0)) for b in known) / total
    return f"off by {number(off)} on average"


def _roc(sides: Sequence[Side]) -> Plot | None:
    lines = [Series("by chance", [(0.0, 0.0), (1.0, 1.0)], "soft")]
    told = []
    for index, side in enumerate(sides):
        if side.roc:
            lines.append(Series(clean(side.version), list(side.roc), colour(index)))
            told.append(f"{clean(side.version)}: {words.value('auc', side.metrics.get('auc'))}")
    if not told:
        return None
    title = "ROC"
    text = f"Area under the curve: {'; '.join(told)}."
    chart = LineChart(
        title, text, lines, "false positive rate", "true positive rate", low=0.0, high=1.0,
        height=_SQUARE,
    )  # fmt: skip
    return Plot("roc", title, chart.svg(), text)


def _residuals(sides: Sequence[Side]) -> Plot | None:
    lines, told = [], []
    for index, side in enumerate(sides):
        bins = side.residuals
        total = sum(b.n for b in bins)
        if not total:
            continue
        points: list[tuple[float, float | None]] = [(b.low, 100 * b.n / total) for b in bins]
        points.append((bins[-1].high, points[-1][1]))
        lines.append(Series(clean(side.version), points, colour(index), stepped=True))
        mean = sum(b.n * b.mean for b in bins) / total
        told.append(f"{clean(side.version)}: {words.change('mae', mean)} on average")
    if not lines:
        return None
    title = "Residuals: prediction minus label"
    text = "; ".join(told) + "."
    chart = LineChart(title, text, lines, "prediction minus label", "percent of rows", low=0.0)
    return Plot("residuals", title, chart.svg(), text)


def _latency(sides: Sequence[Side]) -> Plot | None:
    timed = [(i, s.version, s.latency) for i, s in enumerate(sides) if s.latency and s.latency.n]
    if not timed:
        return None
    groups = [
        (label, [float(getattr(latency, label)) for _, _, latency in timed])
        for label in ("p50", "p95", "p99")
    ]
    title = "Latency, by quantile"
    text = "; ".join(
        f"{clean(version)}: p50 {number(each.p50)} ms, p95 {number(each.p95)} ms, p99 "
        f"{number(each.p99)} ms"
        for _, version, each in timed
    )
    names = [(clean(version), colour(index)) for index, version, _ in timed]
    chart = BarChart(title, text, names, groups, "ms", crowded=len(timed) > 3)
    return Plot("latency", title, chart.svg(), text)


def _coverage(quality: Quality) -> Plot | None:
    stretches = quality.coverage.over_time
    if not any(rows for _, rows, _ in stretches):
        return None
    groups = [(stamp(at), [float(rows), float(labelled)]) for at, rows, labelled in stretches]
    title = "Rows and labels, by when the rows were recorded"
    text = words.labels_in(quality)
    chart = BarChart(
        title, text, [("recorded", "soft"), ("with label", "stable")], groups, "rows",
        crowded=True, x_label="UTC",
    )  # fmt: skip
    return Plot("coverage", title, chart.svg(), text)


def _segments(quality: Quality) -> Plot | None:
    rows = []
    metric = quality.main
    for each in quality.segments:
        if None in (each.low, each.high, each.stable, each.candidate):
            continue
        low, high = float(each.low or 0.0), float(each.high or 0.0)
        middle = float(each.candidate or 0.0) - float(each.stable or 0.0)
        if words.sign(metric) < 0:
            low, middle, high = -high, -middle, -low
        tone = words.tone(words.better(each, metric))
        figures = words.bounds(metric, each.low, each.high)
        name = words.shown(each.name, 40)
        rows.append(Row(name, low, middle, high, figures, "soft" if tone == "quiet" else tone))
    if not rows:
        return None
    title = f"{words.name(metric)} by {words.shown(quality.segments_by, 40)}: difference"
    text = "; ".join(f"{row.name}: {row.figures}" for row in rows)
    candidate = clean(quality.candidate)
    chart = Forest(
        title, text, rows, f"{candidate} is worse", f"{candidate} is better", common=True
    )
    return Plot("segments", title, chart.svg(), text)


def _time_unit(seconds: float) -> tuple[str, float]:
    return ("days", 86400.0) if seconds >= _DAYS else unit_of(seconds)


def stamp(at: float) -> str:
    """A Unix time, short."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "?"
