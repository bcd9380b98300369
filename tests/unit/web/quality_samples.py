"""Reports of quality as a server would give them, for tests of how they are shown."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from hotswap.core.quality_views import (
    Agreement,
    Apart,
    Bin,
    Coverage,
    Difference,
    Latency,
    Point,
    Quality,
    Segment,
    Side,
)

BEGAN = 1_700_000_000.0
DAY = 86400.0


def path(estimate: float, width: float, points: int = 30) -> tuple[Point, ...]:
    """A difference over eight days whose bounds come nearer to it."""
    found = []
    for at in range(1, points + 1):
        wide = width * math.sqrt(points / at) * (4 if at == 1 else 1)
        middle = estimate + 0.5 * width * math.sin(at) * math.sqrt(1 / at)
        found.append(
            Point(BEGAN + 8 * DAY * at / points, 40 * at, middle, middle - wide, middle + wide)
        )
    last = found[-1]
    return (*found[:-1], msgspec.structs.replace(
        last, estimate=estimate, low=estimate - width, high=estimate + width
    ))  # fmt: skip


def difference(metric: str, estimate: float, width: float, better: bool | None) -> Difference:
    """One with its path and a sentence."""
    said = "No difference" if better is None else "A difference"
    return Difference(
        metric, 1200, estimate, estimate - width, estimate + width, better,
        f"{said} in {metric} between v2 and v1 is shown (at 95 %, whenever you look).",
        path(estimate, width),
    )  # fmt: skip


def side(version: str, skill: float) -> Side:
    """One version of a binary task; ``skill`` from 0 to 1."""
    roc = tuple((at / 40, (at / 40) ** (1 - skill)) for at in range(41))
    bins = tuple(
        Bin(at / 10, (at + 1) / 10, 120, at / 10 + 0.05, min(1.0, (at / 10 + 0.05) ** (2 - skill)))
        for at in range(10)
    )
    metrics = {
        "accuracy": 0.85 + skill / 20, "precision": 0.8, "recall": 0.75 + skill / 10, "f1": 0.7741,
        "auc": 0.9 + skill / 20, "log_loss": 0.35 - skill / 10, "brier": 0.12 - skill / 50,
    }  # fmt: skip
    return Side(version, 1200, 3, metrics, Latency(9000, 1.9, 4.25, 12.5), bins, (), roc)


def rows_apart(**changes: Any) -> tuple[Apart, ...]:
    """Rows on which both differ."""
    inputs = {"amount": 120.5, "country": "DE", "age": None, "night": True}
    return tuple(
        msgspec.structs.replace(
            Apart(f"request-{at}", at % 3, BEGAN + at * 3600, 0.0, 1.0, 0.9 - at / 50, 1.0, inputs),
            **changes,
        )
        for at in range(7)
    )


def coverage(rows: int = 5000, labelled: int = 1200) -> Coverage:
    """Labels that come in later and later."""
    stretches = tuple(
        (BEGAN + 8 * DAY * at / 40, rows // 40, labelled // 40 * (2 if at < 20 else 0))
        for at in range(40)
    )
    by = {
        "v1 baseline": (rows * 9 // 10, labelled * 9 // 10),
        "v2 candidate": (rows // 10, labelled // 10),
    }
    return Coverage(rows, labelled, 4, 17, by, stretches, 2500, 1150)


def binary(**changes: Any) -> Quality:
    """Two versions on the same requests, with everything."""
    quality = Quality(
        model="fraud",
        task="binary",
        paired=True,
        stable="v1",
        candidate="v2",
        sides=(side("v1", 0.4), side("v2", 0.8)),
        differences=(
            difference("accuracy", 0.021, 0.012, True),
            difference("log_loss", -0.03, 0.045, None),
            difference("brier", 0.015, 0.008, False),
            difference("auc", 0.018, 0.02, None),
        ),
        agreement=Agreement(4200, 3990, ("0", "1"), ((3300, 120), (90, 690))),
        apart=rows_apart(),
        coverage=coverage(),
        main="accuracy",
        segments_by="country",
        segments=(
            Segment("DE", 700, 0.86, 0.9, 0.01, 0.07),
            Segment("FR", 400, 0.88, 0.87, -0.05, 0.03),
            Segment("missing", 20, 0.8, 0.5, -0.5, -0.1),
        ),
        notes=("Only the newest 1,000,000 labelled rows are looked at.",),
        skipped=("000000000001.arrows is damaged after record 12: the rest is read",),
        first=BEGAN,
        last=BEGAN + 8 * DAY,
    )
    return msgspec.structs.replace(quality, **changes)


def unlabelled() -> Quality:
    """Both answered, and no label is in."""
    bare = tuple(Side(v, 0, 0, {}, Latency(9000, 1.9, 4.25, 12.5)) for v in ("v1", "v2"))
    return binary(
        sides=bare, differences=(), segments=(), segments_by="", notes=(), skipped=(),
        coverage=Coverage(5000, 0, 0, 0, {"v1 baseline": (5000, 0)}, ((BEGAN, 5000, 0),)),
    )  # fmt: skip


def alone() -> Quality:
    """One version that nothing is compared with."""
    return binary(
        paired=False, candidate="", sides=(side("v1", 0.4),), differences=(), agreement=None,
        apart=(), segments=(Segment("DE", 700, 0.86, None),),
    )  # fmt: skip


def empty() -> Quality:
    """Nothing at all."""
    return Quality("fraud", "", False, "", "", (), (), None, (), Coverage(0, 0, 0, 0))


def regression() -> Quality:
    """Two versions whose answers are numbers."""
    sides = tuple(
        Side(
            version, 1200, 0, {"mae": 3.2 + off, "rmse": 4.4 + off, "r2": 0.91 - off / 10},
            Latency(9000, 1.9, 4.25, 12.5),
            residuals=tuple(
                Bin(at - 10.0, at - 9.0, 20 + 10 * (10 - abs(at - 10)), at - 9.5 + off)
                for at in range(20)
            ),
        )
        for version, off in (("v1", 0.0), ("v2", 0.4))
    )  # fmt: skip
    return binary(
        task="regression", sides=sides, main="mae",
        differences=(difference("mae", 0.4, 0.1, False), difference("mse", 1.5, 2.0, None)),
        agreement=Agreement(4200, 12, apart={"p50": 0.4, "p95": 1.2, "p99": 3.0, "max": 12345.6}),
        segments=(Segment("1 to 2", 700, 3.0, 3.5), Segment("2 to 3", 500, 3.4, 3.9)),
        apart=rows_apart(stable=1.25, candidate=13.75, apart=12.5, label=2.0),
    )  # fmt: skip


def multiclass(classes: int = 21) -> Quality:
    """More classes than are shown, and versions' answers by name."""
    names = (*(f"class {at}" for at in range(classes - 1)), "other")
    matrix = tuple(
        tuple(200 if i == j else (i * j) % 7 for j in range(classes)) for i in range(classes)
    )
    return binary(
        task="multiclass",
        sides=tuple(Side(v, 1200, 0, {"accuracy": 0.8, "log_loss": 0.7}) for v in ("v1", "v2")),
        agreement=Agreement(sum(map(sum, matrix)), 200 * classes, names, matrix),
        apart=rows_apart(stable="class 1", candidate="class 7", apart=1.0, label="class 7"),
    )
