"""Differences with their intervals around a line at zero, as SVG text. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hotswap.web.plots import colour_of, frame, text

_NAME, _FROM, _TO = 168, 184, 456
_STEP: Final = 30
_TOP: Final = 34
_LONGEST: Final = 26


@dataclass(frozen=True)
class Row:
    """One difference: to the right of zero is better. ``figures``: what is written beside it."""

    name: str
    low: float
    estimate: float
    high: float
    figures: str
    colour: str = "soft"


@dataclass(frozen=True)
class Forest:
    """Rows below one another. ``common``: all on one scale, else each on its own."""

    title: str
    description: str
    rows: Sequence[Row]
    worse: str
    better: str
    common: bool = False

    def svg(self) -> str:
        """The chart as an ``<svg>`` element."""
        middle, half = (_FROM + _TO) / 2, (_TO - _FROM) / 2
        height = _TOP + _STEP * len(self.rows) + 12
        parts = [
            f'<line class="axis" x1="{middle}" x2="{middle}" y1="{_TOP - 8}" y2="{height - 8}"/>',
            text(middle - 8, 18, f"← {_cut(self.worse)}", anchor="end"),
            text(middle + 8, 18, f"{_cut(self.better)} →", anchor="start"),
        ]
        widest = max((_reach(row) for row in self.rows), default=1.0)
        for index, row in enumerate(self.rows):
            reach = widest if self.common else _reach(row)
            y = _TOP + _STEP * index + _STEP / 2
            ends = [_place(each, reach, middle, half) for each in (row.low, row.estimate, row.high)]
            parts += _drawn(row, ends, y)
        return frame(self.title, self.description, parts, height)


def _drawn(row: Row, ends: Sequence[float], y: float) -> list[str]:
    low, at, high = ends
    style = f'style="stroke:var(--{colour_of(row.colour)})"'
    fill = f'style="fill:var(--{colour_of(row.colour)})"'
    return [
        text(_NAME, y + 4, _cut(row.name), anchor="end", kind="value"),
        f'<line class="line" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}" {style}/>',
        *(
            f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 5:.1f}" y2="{y + 5:.1f}" {style}/>'
            for x in (low, high)
        ),
        f'<circle cx="{at:.1f}" cy="{y:.1f}" r="4.5" {fill}/>',
        text(_TO + 14, y + 4, row.figures, anchor="start", kind="value"),
    ]


def _reach(row: Row) -> float:
    """The farthest that it is from zero."""
    far = [abs(each) for each in (row.low, row.estimate, row.high) if math.isfinite(each)]
    return max(far, default=0.0) or 1.0


def _place(value: float, reach: float, middle: float, half: float) -> float:
    if math.isnan(value):
        return middle
    return middle + half * min(1.0, max(-1.0, value / reach))


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
