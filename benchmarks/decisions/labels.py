"""How many labels until a candidate that is a point worse is found, on recorded predictions.

Rows of two real classifiers' held-out predictions are drawn again and again, with replacement, as
labels that arrive one after another. Paired: both answered each request. Unpaired: a coin chose
who answers. Each method has the whole level of 5 %. ``equal``: the same rows with the versions'
roles exchanged by a coin at each, so that what is found is false.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from benchmarks.decisions import delays, vectors
from benchmarks.decisions.chunks import Work, generator
from benchmarks.decisions.delays import ALONE, Delays
from benchmarks.decisions.labels_recorded import RECORDED, Recorded
from benchmarks.decisions.vectors import Floats
from hotswap.stats import auc, differences, losses, pairs, power

RHOS: Final = (0.5, 0.1, 0.01)
#: Labels watched when the versions are equal.
HORIZON: Final = 20_000
_CHUNK: Final = 500  # resamplings at a time
Cell = dict[str, Any]


def summary(found: Floats, **what: Any) -> Cell:
    """Means and quantiles of the labels over the runs that found it (-1: not found)."""
    n = found[found > 0]
    return {
        **what,
        "runs": len(found),
        "found": len(n) / len(found),
        "mean": float(n.mean()) if len(n) else None,
        "median": float(np.median(n)) if len(n) else None,
        "p90": float(np.quantile(n, 0.9)) if len(n) else None,
    }


def mcnemar_labels(rng: np.random.Generator, d: Floats, runs: int, horizon: int, *, equal: bool) -> Floats:  # fmt: skip
    """F5 after every label, by the boundary in counts at which the production function fires."""
    worse, better = float((d > 0).mean()), float((d < 0).mean())
    differ = worse + better
    share = 0.5 if equal else worse / differ
    events = max(200, int(1.5 * horizon * differ))
    bounds = vectors.boundary(
        lambda total, ours: pairs.mcnemar_evidence(pairs.Pairs(ours, total - ours, 0)),
        ALONE,
        np.arange(events + 1),
    )
    fired = np.cumsum(rng.random((runs, events)) < share, axis=1) >= bounds[1:]
    first = np.where(fired.any(axis=1), fired.argmax(axis=1) + 1, 0)
    labels = first + rng.negative_binomial(np.maximum(first, 1), differ)
    return np.where((first > 0) & (labels <= horizon), labels, -1.0).astype(np.float64)


def betting_labels(rng: np.random.Generator, d: Floats, runs: int, horizon: int, *, equal: bool, look: int = 20) -> Floats:  # fmt: skip
    """F6 on any differences, each ``look`` labels. As in production, what lies between two exact
    buckets goes to one of them by a chance of its own.
    """
    share = d * differences.STEPS / 2 - np.floor(d * differences.STEPS / 2)
    lower, upper = (
        np.array([differences.bucket(x, chance) for x in d.tolist()]) for chance in (1 - 1e-12, 0.0)
    )
    turned = (-lower, -upper) if equal else (lower, upper)
    gains = np.stack([vectors.difference_gains(at) for at in (lower, upper, *turned)])
    wealth: Floats = np.zeros((runs, gains.shape[2]))
    found: Floats = np.full(runs, -1.0)
    for step in range(1, horizon // look + 1):
        going = np.flatnonzero(found < 0)
        rows = rng.integers(0, len(d), (len(going), look))
        ends = (rng.random(rows.shape) < share[rows]) + 2 * rng.integers(0, 2, rows.shape)
        wealth[going] += gains[ends, rows].sum(axis=1)
        new = going[vectors.log_mean(wealth[going]) >= ALONE]
        found[new] = step * look
        if (found > 0).all():
            break
    return found


def block_labels(rng: np.random.Generator, seen: Recorded, runs: int, horizon: int, *, equal: bool, ratio: int = 0, look: int = 100) -> Floats:  # fmt: skip
    """F7, the production functions themselves, each ``look`` labels; those that freeze the classes'
    ratio are counted too. ``ratio``: negatives to a block if not that.
    """
    found: Floats = np.full(runs, -1.0)
    scores = np.stack([seen.stable[:, 1], seen.candidate[:, 1]])
    for run in range(runs):
        state = auc.Blocks(ratio)
        for step in range(1, horizon // look + 1):
            rows = rng.integers(0, len(seen.labels), look)
            side = rng.integers(0, 2, look) if equal else np.zeros(look, np.int64)
            columns = seen.labels[rows] == 1, scores[side, rows], scores[1 - side, rows]
            state = auc.feed(state, zip(*(column.tolist() for column in columns), strict=True))
            if differences.rollback_evidence(state.counts) >= ALONE:
                found[run] = step * look
                break
    return found


def paired(seen: Recorded) -> list[tuple[str, Callable[..., Floats], Any]]:
    """Methods by name, and what each is given."""
    wrong = losses.scaled_difference(seen.wrong("candidate"), seen.wrong("stable"))
    methods: list[tuple[str, Callable[..., Floats], Any]] = [
        ("accuracy, paired (F5)", mcnemar_labels, wrong),
        ("accuracy, paired (F6)", betting_labels, wrong),
    ]
    if seen.stable.shape[1] == 2:
        for name, loss in (("log loss", losses.log_loss), ("Brier score", losses.brier)):
            d = losses.scaled_difference(
                loss(seen.labels, seen.candidate), loss(seen.labels, seen.stable)
            )
            methods.append((f"{name}, paired (F6)", betting_labels, d))
        methods.append(("AUC, blocks (F7)", block_labels, seen))
    return methods


def truth(seen: Recorded, method: str) -> tuple[float, float]:
    """What stable and the candidate have of that metric, over all rows."""
    both = seen.stable, seen.candidate
    if method.startswith("accuracy"):
        return 1.0 - float(seen.wrong("stable").mean()), 1.0 - float(seen.wrong("candidate").mean())
    if method.startswith("AUC"):
        positive = seen.labels == 1
        first, second = (auc.auc(p[positive, 1], p[~positive, 1]) for p in both)
        return first, second
    loss = losses.log_loss if method.startswith("log") else losses.brier
    first, second = (float(loss(seen.labels, p).mean()) for p in both)
    return first, second


def piece(seen: Recorded, which: int, at: int, number: int, runs: int, equal: bool) -> Floats:
    """Some resamplings of one paired method."""
    _, count, given = paired(seen)[at]
    horizon = HORIZON if equal else 10 * HORIZON
    rng = generator(60, which, at, number, int(equal))
    return count(rng, given, runs, horizon, equal=equal)


def unpaired_piece(seen: Recorded, which: int, rho: float, method: str, runs: int) -> Cell:
    """One unpaired method at one share: errors of two rates, as the rows have them."""
    stable, candidate = float(seen.wrong("stable").mean()), float(seen.wrong("candidate").mean())
    rng = generator(61, which, int(rho * 1000), int(method == "F1"))
    if method == "F1":
        found: Delays = delays.error_delays(rng, rho, stable, candidate, ALONE, runs)
    else:
        look = max(20, int(power.lower_bound(rho, stable, candidate) / 500))
        found = delays.unpaired_delays(rng, rho, stable, candidate, runs, look)
    name = f"accuracy, unpaired, {rho * 100:g} % ({method})"
    return summary(found.requests, what=seen.name, method=name, before=1 - stable, after=1 - candidate, unpaired=True)  # fmt: skip


def rows_of(work: Work, which: int, seen: Recorded) -> list[Cell]:
    """Every method on one pair of versions, and the same when they are equal."""
    rows = []
    for at, (method, count, _) in enumerate(paired(seen)):
        before, after = truth(seen, method)
        if (after > before) == (method.startswith(("accuracy", "AUC"))):
            continue  # by that metric it is the better one
        full = 200 if count is block_labels else 2_000
        size = min(_CHUNK, work.runs(full) // 4)
        figures = []
        for equal in (False, True):
            pieces = [(seen, which, at, number, size, equal) for number in range(4)]
            title = f"{method}{', equal' if equal else ''}"
            figures.append(np.concatenate(work.map(title, piece, pieces)))
        false = float((figures[1] > 0).mean())
        rows.append(summary(figures[0], what=seen.name, method=method, before=before, after=after, unpaired=False, false=false))  # fmt: skip
    cells = [(seen, which, rho, how, work.runs(1_000)) for rho in RHOS for how in ("F1", "F2")]
    return rows + work.map("one answer each", unpaired_piece, cells)


def measure(work: Work) -> list[Cell]:
    """Every row of the table."""
    rows: list[Cell] = []
    for which, load in enumerate(RECORDED):
        seen = load()
        wrong = seen.wrong("candidate") != seen.wrong("stable")
        about = {"disagreement": float(wrong.mean()), "rows": len(seen.labels)}
        rows += [row | about for row in rows_of(work, which, seen)]
    return rows
