"""A rollout's account: what was asked, what was seen, what was decided and why. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from hotswap.core.rollout_views import JournalView, RolloutView
from hotswap.web import phrases, plots, report_data, report_plots

if TYPE_CHECKING:
    from jinja2 import Environment

FORMATS: Final = {"html": ".html", "markdown": ".md"}
_SPECIAL: Final = re.compile(r"([\\`*\[\]<>|~#&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


@dataclass(frozen=True)
class Report:
    """``text`` is the account; ``files``: name to content of what lies beside it."""

    text: str
    files: dict[str, str] = field(default_factory=dict)


def write(view: RolloutView, journal: Sequence[JournalView], form: str, stem: str = "") -> Report:
    """The account as ``form`` ("html" or "markdown").

    HTML is one document that needs nothing else. Markdown embeds its plots as files whose names
    begin with ``stem``; without a ``stem`` it has their descriptions alone.
    """
    drawn = report_plots.draw(view, journal)
    values: dict[str, Any] = {
        "view": view,
        "metrics": report_data.latest(view, journal),
        "plots": drawn,
        "periods": report_data.periods(view, journal),
        "sayings": report_data.sayings(view, journal),
        "entries": len(journal),
        "verdict": phrases.verdict_sentence(view),
        "seen": phrases.seen(view),
        "asked": json.dumps(view.spec, indent=2, ensure_ascii=False, default=str),
        "style": plots.STYLE,
    }
    if form == "html":
        return Report(_environment(True).get_template("report.html.j2").render(values))
    files = (
        {f"{stem}-{plot.name}.svg": plots.standalone(plot.svg) for plot in drawn.every()}
        if stem
        else {}
    )
    values["file"] = _namer(stem)
    text = _environment(False).get_template("report.md.j2").render(values)
    return Report(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", files)


def markdown(text: object) -> str:
    r"""``text`` as Markdown that shows exactly it, on one line.

    >>> markdown("a|b <i>error_rate</i>\n# _x_")
    'a\\|b \\<i\\>error_rate\\</i\\> \\# \\_x\\_'
    """
    return _SPECIAL.sub(r"\\\1", " ".join(phrases.clean(text).split()))


def when(at: float) -> str:
    """A Unix time for people.

    >>> when(1.7e9)
    '2023-11-14 22:13:20 UTC'
    """
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return phrases.NOTHING


def _namer(stem: str) -> Callable[[report_plots.Plot], str]:
    return lambda plot: f"{stem}-{plot.name}.svg" if stem else ""


def _code(text: str) -> str:
    """A fenced block that its content cannot end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}json\n{phrases.clean(text)}\n{fence}"


@cache
def _environment(html: bool) -> Environment:
    return environment(html)


def environment(html: bool) -> Environment:
    """What fills the templates in; of HTML everything is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("hotswap.web"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "arm": phrases.arm,
        "cause": lambda each: phrases.cause(each.phase, each.reason),
        "clean": phrases.clean,
        "code": _code,
        "compared": lambda value, metric: phrases.compared(metric, value),
        "duration": phrases.duration,
        "interval": phrases.interval,
        "md": markdown,
        "number": phrases.number,
        "odds": phrases.odds,
        "percent": phrases.percent,
        "tone": phrases.tone,
        "when": when,
    }
    return made
