"""Lost records (the sample-ratio alarm), and errors that rise when no second arm is left (F9)."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from benchmarks.decisions import vectors
from benchmarks.decisions.chunks import Work, generator, wilson
from benchmarks.decisions.vectors import Floats
from hotswap.stats import split
from hotswap.stats.rate import GRID

_LOOK: Final = 200
_ENOUGH: Final = math.log(1000)
ARL: Final = 100_000.0


def lost_row(rho: float, loss: float, runs: int, horizon: int) -> dict[str, Any]:
    """Some of the candidate's outcomes never arrive; a look every 200 that do."""
    rng = generator(50, int(rho * 1000), int(loss * 100))
    totals = np.arange(_LOOK, horizon + 1, _LOOK)
    many = vectors.boundary(
        lambda n, k: split.evidence([split.SplitCell(rho, n, k)]) if k >= rho * n else -math.inf,
        _ENOUGH,
        totals,
    )
    few = _fewest(rho, totals)
    share = rho * (1 - loss) / (rho * (1 - loss) + 1 - rho)
    stops = np.full(runs, -1.0)
    for number in range(runs):
        counts = rng.binomial(_LOOK, share, size=len(totals)).cumsum()
        fired = (counts >= many) | (counts <= few)
        if fired.any():
            # In requests that were made, not in outcomes that arrived.
            stops[number] = totals[fired.argmax()] / (1 - rho * loss)
    found = stops[stops > 0]
    told = share * math.log(share / rho) + (1 - share) * math.log((1 - share) / (1 - rho))
    return {
        "rho": rho,
        "loss": loss,
        "runs": runs,
        "horizon": horizon,
        "found": len(found) / runs,
        "interval": wilson(len(found), runs),
        "mean": float(found.mean()) if len(found) else None,
        "median": float(np.median(found)) if len(found) else None,
        "bound": _ENOUGH / told if loss else None,
    }


def _fewest(rho: float, totals: vectors.Ints) -> vectors.Ints:
    """For each total the most of the candidate's outcomes that are still too few; -1: none."""
    found = np.empty(len(totals), np.int64)
    most = -1
    for place, n in enumerate(totals.tolist()):
        while most + 1 < rho * n and split.evidence([split.SplitCell(rho, n, most + 1)]) >= _ENOUGH:
            most += 1
        found[place] = most
    return found


class Detectors:
    """Many of `hotswap.stats.change`'s detectors side by side, told of one batch each at a time."""

    def __init__(self, runs: int, baseline: float, batch: float) -> None:
        self.wealth: Floats = np.zeros((runs, len(GRID)))
        self._gains = np.log(GRID)
        self._costs = np.log1p(baseline * (np.array(GRID) - 1.0))
        self._fresh = math.log(batch)
        self.wealth += self._fresh
        self.enough = math.log(ARL)

    def update(self, events: Floats, total: float) -> Floats:
        """The evidence after so many events in ``total`` requests."""
        np.maximum(self.wealth, self._fresh, out=self.wealth)
        self.wealth += events[:, None] * self._gains - total * self._costs
        return vectors.log_mean(self.wealth)


def change_row(p0: float, p1: float, runs: int, horizon: int, batch: int) -> dict[str, Any]:
    """Requests until the alarm, the change being there from the first request on."""
    rng = generator(51, int(p0 * 1e5), int(p1 * 1e5))
    detectors = Detectors(runs, p0, batch)
    stops = np.full(runs, -1.0)
    for step in range(1, horizon // batch + 1):
        shown = detectors.update(rng.binomial(batch, p1, runs).astype(np.float64), batch)
        new = (shown >= detectors.enough) & (stops < 0)
        stops[new] = step * batch
        if (stops > 0).all():
            break
    found = stops[stops > 0]
    told = p1 * math.log(p1 / p0) + (1 - p1) * math.log((1 - p1) / (1 - p0))
    censored = np.where(stops > 0, stops, float(horizon))
    return {
        "p0": p0,
        "p1": p1,
        "runs": runs,
        "batch": batch,
        "horizon": horizon,
        "found": len(found) / runs,
        "mean": float(censored.mean()),
        "median": float(np.median(censored)),
        "within_arl": float(((stops > 0) & (stops <= ARL)).mean()),
        "bound": math.log(ARL) / told if p1 > p0 else None,
    }


def measure(work: Work) -> dict[str, Any]:
    """Losses of 20, 10 and 5 %, none at all, and changes of the two usual sizes."""
    runs = work.runs(1_000)
    cells = [
        (0.01, 0.2, runs, 400_000),
        (0.01, 0.1, runs, 1_000_000),
        (0.5, 0.2, runs, 40_000),
        (0.5, 0.1, runs, 40_000),
        (0.5, 0.05, runs, 200_000),
        (0.01, 0.0, work.runs(5_000), 400_000),
        (0.5, 0.0, work.runs(5_000), 400_000),
    ]
    changes = [
        (0.01, 0.02, work.runs(2_000), 200_000, 1),
        (0.001, 0.01, work.runs(2_000), 200_000, 1),
        (0.01, 0.01, work.runs(500), 2_000_000, 20),
    ]
    return {
        "lost": work.map("lost records", lost_row, cells),
        "change": work.map("change after promotion", change_row, changes),
    }
