"""A model's report: how good its versions were, as one page or as Markdown. Pure."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from hotswap.core.quality_views import Quality
from hotswap.web import plots, quality_plots, report
from hotswap.web import quality_words as words

if TYPE_CHECKING:
    from jinja2 import Environment

FORMATS: Final = {"html": ".html", "markdown": ".md"}


def write(quality: Quality, form: str) -> str:
    """The report as ``form``: "html", one document that needs nothing else, or "markdown"."""
    values: dict[str, Any] = {
        "quality": quality,
        "plots": quality_plots.draw(quality),
        "heat": heat(quality),
        "metrics": words.metrics_of(quality.sides),
        "words": words,
        "style": plots.STYLE,
    }
    if form == "html":
        return _environment(True).get_template("quality.html.j2").render(values)
    text = _environment(False).get_template("quality.md.j2").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def heat(quality: Quality) -> list[list[tuple[int, float, bool]]]:
    """The matrix of answers: (count, how strongly it is coloured from 0 to 1, whether both agree).

    Where both agree the strength is of all rows; elsewhere of the most frequent disagreement.
    """
    both = quality.agreement
    if both is None:
        return []
    cells = [
        (count, i == j) for i, row in enumerate(both.matrix) for j, count in enumerate(row) if count
    ]
    most = {alike: max((n for n, a in cells if a == alike), default=1) for alike in (True, False)}
    return [
        [(count, round(count / most[i == j], 3), i == j) for j, count in enumerate(row)]
        for i, row in enumerate(both.matrix)
    ]


@cache
def _environment(html: bool) -> Environment:
    environment = report.environment(html)
    environment.filters |= {"shown": words.shown}
    return environment
