"""Line and bar charts as SVG text, without any library. Pure.

Every chart has a title and a description for screen readers, and takes its colours from CSS
variables, so that it reads on light and dark ground. `standalone` makes a file of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final, TypeVar

P = TypeVar("P")

WIDTH: Final = 640
HEIGHT: Final = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 14, 34, 40
_MOST_POINTS: Final = 400

STYLE: Final = """
svg.plot { --ink: #1a1d21; --soft: #5c6570; --grid: #e1e5ea; --stable: #2f6fb5;
  --candidate: #d0682a; --good: #1a7f4b; --bad: #b3261e; --limit: #7a5fb0; }
@media (prefers-color-scheme: dark) { svg.plot { --ink: #e6e9ed; --soft: #9aa4b0; --grid: #31373f;
  --stable: #7db4ee; --candidate: #f2a272; --good: #6fd6a0; --bad: #ff8a80; --limit: #bda4ee; } }
svg.plot text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg.plot text.value { fill: var(--ink); }
svg.plot .grid { stroke: var(--grid); } svg.plot .axis { stroke: var(--soft); }
svg.plot .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg.plot .band { opacity: .16; stroke: none; }
svg.plot .limit { stroke-width: 1.5; stroke-dasharray: 6 4; fill: none; }
"""
COLOURS: Final = ("stable", "candidate", "good", "bad", "limit", "soft")


@dataclass(frozen=True)
class Series:
    """One line. ``points``: (x, y), x never falling; y None is a gap. ``colour``: of `COLOURS`.

    ``band``: (x, low, high) of the area around it. ``stepped``: constant between points.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: str
    band: Sequence[tuple[float, float, float]] = ()
    stepped: bool = False


@dataclass(frozen=True)
class Limit:
    """A horizontal dashed line with a name."""

    name: str
    y: float
    colour: str = "limit"


@dataclass(frozen=True)
class LineChart:
    """A chart of lines. ``log``: a logarithmic y axis; values of zero and less are then left out.

    ``low`` and ``high``: what the y axis shows at least. ``height``: of the chart, to be squarer.
    """

    title: str
    description: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    limits: Sequence[Limit] = field(default_factory=tuple)
    log: bool = False
    low: float | None = None
    high: float | None = None
    height: int = HEIGHT

    def svg(self) -> str:
        """The chart as an ``<svg>`` element."""
        xs = [x for line in self.series for x, y in line.points if y is not None]
        ys = self._values()
        if not xs or not ys:
            return frame(self.title, self.description, [text(WIDTH / 2, HEIGHT / 2, "no data")])
        across = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
        up = _Scale(min(ys), max(ys), self.height - _BOTTOM, _TOP, self.log)
        parts = _axes(across, up, self.x_label, self.y_label)
        parts += [part for line in self.series for part in _line(line, across, up)]
        parts += [_limit(limit, up) for limit in self.limits]
        parts.append(_legend(self.series, self.limits))
        return frame(self.title, self.description, parts, self.height)

    def _values(self) -> list[float]:
        values = [y for line in self.series for _, y in line.points if y is not None]
        values += [end for line in self.series for _, low, high in line.band for end in (low, high)]
        values += [limit.y for limit in self.limits]
        values += [end for end in (self.low, self.high) if end is not None]
        return [y for y in values if math.isfinite(y) and (y > 0 or not self.log)]


@dataclass(frozen=True)
class BarChart:
    """Groups of bars from zero, one bar for each of ``names`` in every group.

    ``groups``: (label, values in ``names``' order; None where there is no value).
    ``unit`` is that of the y axis. ``crowded``: too many groups to write values above bars.
    """

    title: str
    description: str
    names: Sequence[tuple[str, str]]
    groups: Sequence[tuple[str, Sequence[float | None]]]
    unit: str
    crowded: bool = False
    x_label: str = ""

    def svg(self) -> str:
        """The chart as an ``<svg>`` element."""
        values = [v for _, group in self.groups for v in group if v is not None and v >= 0]
        finite = [value for value in values if math.isfinite(value)]
        if not finite or max(finite) <= 0:
            return frame(self.title, self.description, [text(WIDTH / 2, HEIGHT / 2, "no data")])
        up = _Scale(0.0, max(finite), HEIGHT - _BOTTOM, _TOP)
        parts = _grid(up, self.unit)
        slot = (WIDTH - _LEFT - _RIGHT) / len(self.groups)
        every = max(1, math.ceil(len(self.groups) / 8)) if self.crowded else 1
        for index, (label, group) in enumerate(self.groups):
            left = _LEFT + slot * index
            parts += self._group(left, slot, group, up)
            if index % every == 0:
                parts.append(text(left + slot / 2, HEIGHT - _BOTTOM + 16, label))
        if self.x_label:
            parts.append(text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, self.x_label))
        parts.append(_keys([(name, colour, False) for name, colour in self.names]))
        return frame(self.title, self.description, parts)

    def _group(
        self, left: float, slot: float, group: Sequence[float | None], up: _Scale
    ) -> list[str]:
        width = min(46.0, slot * (0.9 if self.crowded else 0.7) / max(len(self.names), 1))
        start = left + (slot - width * len(self.names)) / 2
        parts = []
        for index, ((_, colour), value) in enumerate(zip(self.names, group, strict=True)):
            if value is None or not math.isfinite(value) or value < 0:
                continue
            x, y = start + width * index, up(value)
            parts.append(
                f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(width - 1, 0.5):.1f}" '
                f'height="{HEIGHT - _BOTTOM - y:.1f}" style="fill:var(--{colour_of(colour)})"/>'
            )
            if not self.crowded:
                parts.append(text(x + width / 2, y - 4, _short(value), kind="value"))
        return parts


def standalone(svg: str) -> str:
    """A chart as a file of its own, with the style that a page gives it otherwise."""
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{rest}\n'


class _Scale:
    """Values to pixels, with some room at both ends, and round numbers between them."""

    def __init__(
        self, low: float, high: float, first: float, last: float, log: bool = False
    ) -> None:
        self.log = log
        if log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-12:
            half = 0.5 if log else max(abs(low) * 0.1, 0.5)
            low, high = low - half, high + half
        self.low, self.high, self.first, self.last = low, high, first, last

    def __call__(self, value: float) -> float:
        at = math.log10(max(value, 1e-300)) if self.log else value
        share = (at - self.low) / (self.high - self.low)
        return self.first + (self.last - self.first) * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """At most about six round values within the scale."""
        if self.log:
            first, last = math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9)
            if last > first:
                every = max(1, math.ceil((last - first) / 5))
                return [10.0**power for power in range(first, last + 1, every)]
            return [10**self.low, 10**self.high]
        rough = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(rough))
        step = next(size * unit for size in (1, 2, 5, 10) if size * unit >= rough - 1e-12)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def frame(title: str, description: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    """An ``<svg>`` element around ``parts``, for those who cannot see it too."""
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{_safe(title)}</title><desc>{_safe(description)}</desc>{''.join(parts)}</svg>"
    )


def _axes(across: _Scale, up: _Scale, x_label: str, y_label: str) -> list[str]:
    parts = _grid(up, y_label)
    for tick in across.ticks():
        parts.append(text(across(tick), up.first + 16, _short(tick)))
    parts.append(text((_LEFT + WIDTH - _RIGHT) / 2, up.first + _BOTTOM - 6, x_label))
    return parts


def _grid(up: _Scale, y_label: str) -> list[str]:
    parts = []
    for tick in up.ticks():
        y = up(tick)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(text(_LEFT - 8, y + 4, _short(tick), anchor="end"))
    base = f"{up.first:.0f}"
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    middle = (_TOP + up.first) / 2
    parts.append(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.0f})">{_safe(y_label)}</text>'
    )
    return parts


def _line(line: Series, across: _Scale, up: _Scale) -> list[str]:
    colour = colour_of(line.colour)
    parts = []
    band = [each for each in _thinned(line.band) if not up.log or each[1] > 0]
    if len(band) > 1:
        edge = [f"{across(x):.1f},{up(high):.1f}" for x, _, high in band]
        edge += [f"{across(x):.1f},{up(low):.1f}" for x, low, _ in reversed(band)]
        points = " ".join(edge)
        parts.append(f'<polygon class="band" points="{points}" style="fill:var(--{colour})"/>')
    path, pen, last = [], "M", 0.0
    for x, y in _thinned(line.points):
        if y is None or math.isnan(y) or (up.log and y <= 0):
            pen = "M"
            continue
        if line.stepped and pen == "L":
            path.append(f"L{across(x):.1f} {last:.1f}")
        last = up(y)
        path.append(f"{pen}{across(x):.1f} {last:.1f}")
        pen = "L"
    if len(path) == 1:
        x_y = path[0][1:].split()
        parts.append(f'<circle cx="{x_y[0]}" cy="{x_y[1]}" r="3" style="fill:var(--{colour})"/>')
    elif path:
        parts.append(f'<path class="line" d="{"".join(path)}" style="stroke:var(--{colour})"/>')
    return parts


def _limit(limit: Limit, up: _Scale) -> str:
    y = up(limit.y)
    return (
        f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
        f'style="stroke:var(--{colour_of(limit.colour)})"/>'
    )


def _legend(series: Sequence[Series], limits: Sequence[Limit]) -> str:
    return _keys(
        [(line.name, line.colour, False) for line in series]
        + [(limit.name, limit.colour, True) for limit in limits]
    )


def _keys(keys: Sequence[tuple[str, str, bool]]) -> str:
    """The names above the plot, each after a dash of its colour."""
    room = (WIDTH - _LEFT - _RIGHT) / max(len(keys), 1)
    most = max(4, int(room / 6.6) - 5)
    parts, x = [], float(_LEFT)
    for name, colour, dashed in keys:
        shown = name if len(name) <= most else name[: most - 1] + "…"
        kind = "limit" if dashed else "line"
        parts.append(
            f'<line class="{kind}" x1="{x:.0f}" x2="{x + 18:.0f}" y1="16" y2="16" '
            f'style="stroke:var(--{colour_of(colour)})"/>'
        )
        parts.append(text(x + 24, 20, shown, anchor="start"))
        x += 24 + 6.6 * len(shown) + 18
    return "".join(parts)


def text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    """Escaped text at a place."""
    css = f' class="{kind}"' if kind else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_safe(text)}</text>'


def _safe(text: str) -> str:
    return escape("".join(c if c.isprintable() else "�" for c in text))


def colour_of(name: str) -> str:
    """``name`` if it is one of `COLOURS`."""
    return name if name in COLOURS else "stable"


def _short(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        mantissa, _, power = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _thinned(points: Sequence[P]) -> Sequence[P]:
    """At most `_MOST_POINTS` of them, evenly, the first and the last among them."""
    if len(points) <= _MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]
