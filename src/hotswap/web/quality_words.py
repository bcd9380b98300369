"""A report of quality in words and figures: the same on a terminal and on a page. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Final

from hotswap.core.quality_views import Apart, Difference, Quality, Segment, Side
from hotswap.web.phrases import NOTHING, clean, number, percent

#: Metrics in the order in which they are shown, and their names.
NAMES: Final = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "auc": "AUC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "mae": "Mean absolute error",
    "mse": "Mean squared error",
    "rmse": "Root mean squared error",
    "r2": "R²",
}
_SHARES: Final = ("accuracy", "precision", "recall", "f1")
_LESS_IS_BETTER: Final = ("log_loss", "brier", "mae", "mse", "rmse")
#: Metrics whose values are read to the fourth decimal.
_FINE: Final = ("auc", "log_loss", "brier", "r2")
_LONGEST: Final = 120
_INPUTS: Final = 12


def name(metric: str) -> str:
    """What people call it.

    >>> name("auc"), name("something_else")
    ('AUC', 'something_else')
    """
    return NAMES.get(metric) or clean(metric)


def sign(metric: str) -> float:
    """1 where more is better, -1 where less is."""
    return -1.0 if metric in _LESS_IS_BETTER else 1.0


def hint(metric: str) -> str:
    """Which way is good."""
    return "less is better" if metric in _LESS_IS_BETTER else "more is better"


def value(metric: str, figure: float | None) -> str:
    """A level in the metric's own unit.

    >>> value("accuracy", 0.9132), value("log_loss", 0.31415), value("mae", 12.0), value("auc", None)
    ('91.32 %', '0.3142', '12', '–')
    """
    if figure is None or math.isnan(figure):
        return NOTHING
    if math.isinf(figure):
        return number(figure)
    if metric in _SHARES:
        return f"{100 * figure:.2f} %"
    return f"{figure:.4f}" if metric in _FINE else number(figure)


def change(metric: str, figure: float | None) -> str:
    """A difference with its sign.

    >>> change("accuracy", -0.0123), change("mae", 0.5), change("auc", 0.0)
    ('−1.23 pt', '+0.5', '0')
    """
    if figure is None or math.isnan(figure):
        return NOTHING
    shown = number(abs(figure) * scale(metric))
    mark = "" if shown == "0" else "+" if figure > 0 else "−"
    return f"{mark}{shown}" + (" pt" if metric in _SHARES else "")


def scale(metric: str) -> float:
    """How many of the unit that is shown there are in one."""
    return 100.0 if metric in _SHARES else 1.0


def unit(metric: str) -> str:
    """The unit that differences are shown in."""
    return "percentage points" if metric in _SHARES else name(metric)


def bounds(metric: str, low: float | None, high: float | None) -> str:
    """Both ends of an interval.

    >>> bounds("accuracy", -0.01, 0.02), bounds("mae", None, None)
    ('−1 to +2 pt', '–')
    """
    if low is None or high is None:
        return NOTHING
    return f"{change(metric, low).removesuffix(' pt')} to {change(metric, high)}"


def tone(better: bool | None) -> str:
    """How a difference is to be taken: good, bad or quiet."""
    return "quiet" if better is None else "good" if better else "bad"


def verdict(better: bool | None) -> str:
    """The same in a word or two."""
    return "not shown" if better is None else "better" if better else "worse"


def better(segment: Segment, metric: str) -> bool | None:
    """Whether a segment's difference is shown to be one, and which way."""
    low, high = segment.low, segment.high
    if low is None or high is None or low <= 0 <= high:
        return None
    return (low > 0) == (sign(metric) > 0)


def metrics_of(sides: Sequence[Side]) -> list[str]:
    """The metrics that any of them has, in the order in which they are shown."""
    found = {metric for side in sides for metric in side.metrics}
    return [m for m in NAMES if m in found] + sorted(found - set(NAMES))


def title(quality: Quality) -> str:
    """Whose quality this is.

    A model alone, or with the two versions that were compared.
    """
    if quality.paired and quality.candidate:
        return f"{quality.model}: {quality.stable or 'stable'} → {quality.candidate}"
    return f"{quality.model}: quality"


def headline(quality: Quality) -> list[str]:
    """What is compared, what has come in, and what is missing: a sentence each."""
    found = []
    sides = quality.sides
    if quality.paired and len(sides) == 2:
        of = f"{counted(sides[0].n, 'labelled row')} of " if sides[0].n else ""
        found.append(
            f"{quality.candidate} against {quality.stable}, on {of}requests that both were asked."
        )
    elif len(sides) == 1:
        of = f", on {counted(sides[0].n, 'labelled row')}" if sides[0].n else ""
        found.append(f"{sides[0].version} alone{of}.")
    elif sides:
        found.append(f"{len(sides)} versions, each on the requests that it answered itself.")
    else:
        found.append("No version has answered anything.")
    return found + missing(quality)


def missing(quality: Quality) -> list[str]:
    """Labels that are in, those that are not, and what to do."""
    labels = quality.coverage
    if not labels.rows:
        return ["No row is recorded."]
    found = []
    if not labels.labelled:
        due = f", of which {labels.expected:,} are due" if labels.expected else ""
        found.append(
            f"No label is in for {counted(labels.rows, 'recorded row')}{due}: send them with "
            "`hotswap feedback FILE`. Until then versions are compared by their answers alone."
        )
    else:
        found.append(labels_in(quality))
        if quality.paired and not quality.differences:
            found.append("Too few of them are on rows that both answered to tell a difference.")
    if labels.ambiguous:
        found.append(
            f"{counted(labels.ambiguous, 'labelled row')} cannot be told apart, as several requests "
            "carry the same id: they are left out."
        )
    if labels.unknown:
        found.append(f"{counted(labels.unknown, 'label')} came for requests that are not recorded.")
    return found


def labels_in(quality: Quality) -> str:
    """How many labels are in, of how many that are expected."""
    labels = quality.coverage
    share = percent(100 * labels.labelled / labels.rows) if labels.rows else NOTHING
    told = (
        f"{labels.labelled:,} of {counted(labels.rows, 'recorded row')} have their label ({share})"
    )
    if not labels.expected:
        return f"{told}."
    due = percent(100 * labels.expected_labelled / labels.expected)
    return f"{told}; {labels.expected_labelled:,} of the {labels.expected:,} that are due ({due})."


def agreed(quality: Quality) -> str:
    """How often both answered alike; nothing where no two were asked the same."""
    both = quality.agreement
    if both is None or not both.n:
        return ""
    share = f"{math.floor(10000 * both.same / both.n) / 100:g} %"  # 100 % is all of them
    told = f"{both.same:,} of {counted(both.n, 'row')} got the same answer from both ({share})"
    ends = [f"{label} {number(each)}" for label, each in both.apart.items()]
    return f"{told}; numbers are apart by: {', '.join(ends)}." if ends else f"{told}."


def shown(given: object, most: int = _LONGEST) -> str:
    """A value that a client sent, or a model answered, on one line that is not too long.

    >>> shown(0.123456789), shown(None), shown("a\\nb"), shown("x" * 9, 4), shown([1, 2.5])
    ('0.123457', '–', 'a b', 'xxx…', '[1, 2.5]')
    """
    if given is None:
        return NOTHING
    if isinstance(given, float):
        return f"{given:.6g}"
    raw = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)
    text = " ".join(clean(raw[: 8 * most]).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def inputs(row: Apart) -> list[tuple[str, str]]:
    """The inputs that are shown of a row, by name; the last says how many are not."""
    found = [(shown(each, 60), shown(given, 60)) for each, given in row.inputs.items()]
    rest = len(found) - _INPUTS
    return [*found[:_INPUTS], ("…", f"{rest} more")] if rest > 0 else found


def counted(count: int, noun: str) -> str:
    """A number and what it is of.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def oriented(difference: Difference) -> tuple[float, float, float]:
    """(low, estimate, high), where more is better for the candidate."""
    low, high = difference.low, difference.high
    if sign(difference.metric) < 0:
        return -high, -difference.estimate, -low
    return low, difference.estimate, high
