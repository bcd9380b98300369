"""How far two versions are apart on the same labelled rows, with bounds that hold whenever one looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zlib import crc32

import numpy as np

from hotswap.core.quality_views import Difference, Point
from hotswap.records.quality_metrics import classes_of, text
from hotswap.records.quality_rows import Answered, Array, Floats, Rows, as_numbers
from hotswap.stats import auc, differences, losses

ALPHA: Final = 0.05
_POINTS: Final = 30
#: Metrics of which more is better.
_MORE: Final = ("accuracy", "auc")
_PERCENT: Final = ("accuracy",)


def compare(rows: Rows, task: str) -> tuple[Difference, ...]:
    """Every difference that can be told. Rows in order of arrival, two sides: stable's first."""
    stable, candidate = rows.sides
    found = []
    if task == "regression":
        for metric, lose in (("mae", losses.absolute_error), ("mse", losses.squared_error)):
            found.append(_scaled(rows, metric, lose))
        return tuple(each for each in found if each is not None)
    wrong = [_wrong(rows, side, task) for side in rows.sides]
    found.append(_of_losses(rows, "accuracy", wrong[1], wrong[0], 1.0))
    if stable.chances is not None and candidate.chances is not None and rows.places is not None:
        places = rows.places
        for metric, forecast, size in (
            ("log_loss", losses.log_loss, losses.NATS), ("brier", losses.brier, 1.0),
        ):  # fmt: skip
            lost = [forecast(places, chances) for chances in (stable.chances, candidate.chances)]
            found.append(_of_losses(rows, metric, lost[1], lost[0], size))
    positive = rows.positive
    if task == "binary" and positive is not None:
        found.append(_ranking(rows, positive, stable, candidate))
    return tuple(each for each in found if each is not None)


def _wrong(rows: Rows, side: Answered, task: str) -> Floats:
    given = classes_of(side, task)
    truth = np.array([text(each) for each in rows.labels], dtype=object)
    return np.where(given == "", np.nan, (truth != given).astype(np.float64))


def chances_of(names: list[str]) -> Floats:
    """A number in [0, 1) for each row that depends on its id alone."""
    return np.array([crc32(name.encode("utf-8", "replace")) / (1 << 32) for name in names])


def _of_losses(
    rows: Rows, metric: str, candidate: Floats, stable: Floats, unit: float
) -> Difference | None:
    """Of losses in [0, 1], of which one is ``unit`` of the metric."""
    apart = losses.scaled_difference(candidate, stable)
    return _followed(rows, metric, apart, unit, np.arange(len(rows)))


def _scaled(rows: Rows, metric: str, lose: Callable[..., Floats]) -> Difference | None:
    """Of losses without a bound: the first of stable's freeze what counts as one, and count nowhere."""
    lost = [lose(rows.numbers, as_numbers(side.predictions)) for side in rows.sides]
    known = np.flatnonzero(np.isfinite(lost[0]))
    if len(known) <= losses.ENOUGH:
        return None
    first = known[: losses.ENOUGH]
    scale = losses.freeze_scale(lost[0][first])
    at = np.arange(int(first[-1]) + 1, len(rows))
    apart = losses.scaled_difference(lost[1][at], lost[0][at], scale)
    return _followed(rows, metric, apart, scale, at)


def _followed(rows: Rows, metric: str, apart: Floats, unit: float, at: Array) -> Difference | None:
    if not len(apart):
        return None
    chance = chances_of([rows.names[each] for each in at.tolist()])
    counts: dict[int, int] = {}
    path = []
    for piece in np.array_split(np.arange(len(apart)), min(_POINTS, len(apart))):
        counts = differences.merge(counts, differences.buckets(apart[piece], chance[piece]))
        path.append(_point(rows, counts, metric, unit, int(at[piece[-1]])))
    return _difference(rows, metric, path, float(apart.mean()) * unit)


def _ranking(
    rows: Rows, positive: Array, stable: Answered, candidate: Answered
) -> Difference | None:
    blocks = auc.Blocks()
    path = []
    score = [[None if s != s else s for s in side.score.tolist()] for side in (stable, candidate)]
    fed = list(zip(positive.tolist(), score[0], score[1], strict=True))
    for piece in np.array_split(np.arange(len(fed)), min(_POINTS, len(fed))):
        blocks = auc.feed(blocks, fed[piece[0] : piece[-1] + 1])
        if blocks.counts:
            path.append(_point(rows, blocks.counts, "auc", 1.0, int(piece[-1])))
    if not path:
        return None
    values = [auc.auc(side.score[positive], side.score[~positive]) for side in (stable, candidate)]
    return _difference(rows, "auc", path, values[0] - values[1])


def _point(rows: Rows, counts: object, metric: str, unit: float, at: int) -> Point:
    given: dict[int, int] = dict(counts)  # type: ignore[call-overload]
    low, high = differences.interval(given, ALPHA)
    mean, n = differences.mean(given) * unit, sum(given.values())
    low, high = low * unit, high * unit
    if metric in _MORE:
        mean, low, high = -mean, -high, -low
    return Point(float(rows.times[at]), n, mean, low, high)


def _difference(rows: Rows, metric: str, path: list[Point], lost: float) -> Difference:
    """``lost``: the plain mean difference of losses, unrounded."""
    last = path[-1]
    estimate = -lost if metric in _MORE else lost
    estimate = min(last.high, max(last.low, estimate))
    better: bool | None = None
    if last.low > 0 or last.high < 0:
        better = (last.low > 0) == (metric in _MORE)
    stable, candidate = (side.version for side in rows.sides)
    sentence = _sentence(metric, candidate, stable, estimate, last, better)
    return Difference(metric, last.n, estimate, last.low, last.high, better, sentence, tuple(path))


def _sentence(
    metric: str, candidate: str, stable: str, estimate: float, last: Point, better: bool | None
) -> str:
    """One sentence with its bounds."""
    size = 100.0 if metric in _PERCENT else 1.0
    points = " points" if metric in _PERCENT else ""
    bounds = (
        f"{last.low * size:+.3g} to {last.high * size:+.3g}{points}, at 95 %, whenever you look"
    )
    kind = "blocks of rows" if metric == "auc" else "labelled rows"
    of = f"({bounds}; {last.n:,} {kind})"
    name = {"mse": "the mean squared error", "mae": "the mean absolute error",
            "log_loss": "log loss", "brier": "Brier's score", "auc": "AUC"}.get(metric, metric)  # fmt: skip
    if better is None:
        return f"No difference in {name} between {candidate} and {stable} is shown {of}."
    amount = f"{abs(estimate) * size:.3g}"
    if metric == "accuracy":
        how = "more" if better else "less"
        return f"{candidate} is right {amount} points {how} often than {stable} {of}."
    higher = "higher" if estimate > 0 else "lower"
    verdict = "better" if better else "worse"
    return f"{candidate} is {verdict} than {stable} in {name}: {amount} {higher} {of}."


__all__ = ["ALPHA", "chances_of", "compare"]
