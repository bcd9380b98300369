"""How good a model's versions were, by their records and labels: values that a report shows."""

from __future__ import annotations

from typing import Any

import msgspec


class Latency(msgspec.Struct, frozen=True):
    """Quantiles in milliseconds of ``n`` answers."""

    n: int
    p50: float
    p95: float
    p99: float


class Bin(msgspec.Struct, frozen=True):
    """A bin of scores or residuals from ``low`` to ``high``: ``n`` rows, their ``mean`` (of scores:
    the mean score), and ``share`` of them that are positive (None for residuals).
    """

    low: float
    high: float
    n: int
    mean: float
    share: float | None = None


class Side(msgspec.Struct, frozen=True):
    """One version on the rows that are compared. ``n``: labelled rows; ``missing``: how many of
    these it gave no answer to. ``metrics``: name -> value, of those that can be told: accuracy,
    precision, recall, f1, auc, log_loss, brier; mae, rmse, r2. ``calibration``: bins of the score.
    ``residuals``: bins of prediction minus label. ``roc``: points (false positive rate, true
    positive rate), at most 200.
    """

    version: str
    n: int
    missing: int
    metrics: dict[str, float]
    latency: Latency | None = None
    calibration: tuple[Bin, ...] = ()
    residuals: tuple[Bin, ...] = ()
    roc: tuple[tuple[float, float], ...] = ()


class Point(msgspec.Struct, frozen=True):
    """A difference up to Unix time ``at``, with its confidence sequence."""

    at: float
    n: int
    estimate: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True):
    """Candidate against stable in one metric: ``estimate`` is the candidate's value minus stable's,
    ``low`` and ``high`` a 95 % confidence sequence (they hold whenever one looks), in the metric's
    unit; for rmse of the mean squared error (``metric`` is then ``mse``). ``better``: True or False
    where 0 is outside, else None. ``sentence`` says it. ``path``: how it went.
    """

    metric: str
    n: int
    estimate: float
    low: float
    high: float
    better: bool | None
    sentence: str
    path: tuple[Point, ...] = ()


class Apart(msgspec.Struct, frozen=True):
    """A row on which both differ: by ``apart`` (1 for another class, else of numbers)."""

    request_id: str
    row: int
    time: float
    stable: Any
    candidate: Any
    apart: float
    label: Any = None
    inputs: dict[str, Any] = {}


class Agreement(msgspec.Struct, frozen=True):
    """Of ``n`` rows that both answered ``same`` were answered alike. ``matrix``: counts of (stable's,
    candidate's) classes in the order of ``classes``, the twenty most frequent and "other". For
    numbers: quantiles of the absolute difference (p50, p95, p99, max) in ``apart``.
    """

    n: int
    same: int
    classes: tuple[str, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()
    apart: dict[str, float] = {}


class Segment(msgspec.Struct, frozen=True):
    """One stretch of an input column: ``name`` says which, ``n`` labelled rows, both versions' main
    metric, and the difference with its bounds (None for one version alone).
    """

    name: str
    n: int
    stable: float | None
    candidate: float | None
    low: float | None = None
    high: float | None = None


class Coverage(msgspec.Struct, frozen=True):
    """Labels: ``rows`` recorded, ``labelled`` of them, by version and arm in ``by`` (name -> (rows,
    labelled)). ``ambiguous``: labelled rows whose id several requests carry. ``unknown``: labels for
    ids that are in no record, 0 where they may be for another time or another model.
    ``over_time``: (Unix time, rows, labelled) of up to 60 stretches.
    ``expected``: rows old enough to have their label, and ``expected_labelled`` of them that do; 0
    where nobody says how long a label takes.
    """

    rows: int
    labelled: int
    ambiguous: int
    unknown: int
    by: dict[str, tuple[int, int]] = {}
    over_time: tuple[tuple[float, int, int], ...] = ()
    expected: int = 0
    expected_labelled: int = 0


class Quality(msgspec.Struct, frozen=True):
    """A report. ``task``: binary, multiclass, regression, or "" where no label tells. ``paired``: both
    sides were asked the same requests; else each stands for its own, and ``sides`` has every version
    with records. ``stable``, ``candidate``: "" where there is none. ``main``: the metric of segments.
    ``notes``: what a reader must know (cut short, mixed labels, …); ``skipped``: files that could
    not be read. ``first``, ``last``: Unix times of the records.
    """

    model: str
    task: str
    paired: bool
    stable: str
    candidate: str
    sides: tuple[Side, ...]
    differences: tuple[Difference, ...]
    agreement: Agreement | None
    apart: tuple[Apart, ...]
    coverage: Coverage
    main: str = ""
    segments_by: str = ""
    segments: tuple[Segment, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    first: float | None = None
    last: float | None = None


__all__ = [
    "Agreement", "Apart", "Bin", "Coverage", "Difference", "Latency", "Point", "Quality", "Segment",
    "Side",
]  # fmt: skip
