"""Charts as SVG."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from hotswap.web.plots import HEIGHT, WIDTH, BarChart, Limit, LineChart, Series, standalone

HOSTILE = "<b>&\"'\x00"
Points = list[tuple[float, float | None]]


def _chart(points: Points, **more: object) -> str:
    series = (Series(HOSTILE, points, "stable"),)
    return LineChart(HOSTILE, HOSTILE, series, HOSTILE, HOSTILE, **more).svg()  # type: ignore[arg-type]


def _numbers(svg: str) -> list[float]:
    paths = re.findall(r' (?:d|points|cx|cy|x|y|x1|x2|y1|y2)="([^"]*)"', svg)
    return [float(n) for path in paths for n in re.findall(r"-?[\d.]+(?:e-?\d+)?", path)]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0.0, None)],
        [(0.0, 0.0)],
        [(5.0, 1.0)],
        [(0.0, 1.0), (1.0, 1.0)],
        [(0.0, -1.0), (1.0, math.inf), (2.0, math.nan), (3.0, 1e300)],
        [(0.0, 1e-9), (1.0, None), (2.0, 3e-9)],
        [(float(i), math.sin(i) * 1e6) for i in range(5000)],
    ],
)
def test_any_data_gives_a_chart_within_its_frame(points: Points, log: bool) -> None:
    """Well-formed XML, a title and a description, and no coordinate outside."""
    svg = _chart(points, log=log, limits=(Limit("decides", 20.0),))
    root = ElementTree.fromstring(svg)
    assert [root[0].tag, root[1].tag] == ["title", "desc"]
    assert root[0].text == "<b>&\"'�"
    assert "nan" not in svg
    assert all(-1 <= number <= WIDTH + 1 for number in _numbers(svg))
    assert len(svg) < 30_000


def test_points_are_where_their_values_are() -> None:
    """The least is at the bottom, the greatest at the top, later ones to the right."""
    svg = _chart([(0.0, 1.0), (1.0, 3.0)])
    (path,) = re.findall(r'class="line" d="([^"]*)"', svg)
    (x0, y0), (x1, y1) = [tuple(map(float, p.split())) for p in re.findall(r"[ML]([^ML]*)", path)]
    assert x0 < x1
    assert 0 < y1 < y0 < HEIGHT


def test_a_gap_breaks_the_line() -> None:
    """What is not known is not drawn."""
    svg = _chart([(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 1.0), (4.0, 2.0)])
    (path,) = re.findall(r'class="line" d="([^"]*)"', svg)
    assert path.count("M") == 2


def test_steps_stay_level_until_they_change() -> None:
    """A weight does not drift from one value to the next."""
    points: Points = [(0.0, 5.0), (1.0, 25.0)]
    chart = LineChart("t", "d", (Series("w", points, "candidate", stepped=True),), "x", "y")
    (path,) = re.findall(r'class="line" d="([^"]*)"', chart.svg())
    first, corner, last = [tuple(map(float, p.split())) for p in re.findall(r"[ML]([^ML]*)", path)]
    assert corner == (last[0], first[1])


def test_bars_are_as_high_as_their_values() -> None:
    """And what is missing has none."""
    names = [("a", "stable"), ("b", "candidate")]
    svg = BarChart("t", "d", names, [("p50", [1.0, 2.0]), ("p99", [None, 4.0])], "ms").svg()
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([\d.]+)"', svg)]
    assert heights == pytest.approx([heights[2] / 4, heights[2] / 2, heights[2]], abs=0.2)


@pytest.mark.parametrize("values", [[None], [0.0], [math.inf], [-1.0]])
def test_bars_without_data_say_so(values: list[float | None]) -> None:
    """Instead of dividing by nothing."""
    svg = BarChart("t", "d", [("a", "stable")], [("g", values)], "ms").svg()
    assert "no data" in ElementTree.tostring(ElementTree.fromstring(svg), "unicode")


def test_a_file_of_its_own_brings_namespace_and_style() -> None:
    """Colours for light and dark ground among them."""
    root = ElementTree.fromstring(standalone(_chart([(0.0, 1.0), (1.0, 2.0)])))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in (root[0].text or "")


def test_colours_are_only_those_that_are_known() -> None:
    """A colour's name is part of a style."""
    svg = LineChart("t", "d", (Series("s", [(0, 1.0), (1, 2.0)], "x);}</style>"),), "x", "y").svg()
    assert "</style>" not in svg
