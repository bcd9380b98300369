"""A bandit between equal versions: the production sampler moves the share, F1 decides."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from benchmarks.decisions.chunks import Work, generator, wilson
from benchmarks.decisions.falsealarms import ALPHA
from hotswap.stats import rate, thompson

_MOVES: Final = 150
_BATCH: Final = 200  # requests between two moves
_PIECE: Final = 25


def run(rng: np.random.Generator, p0: float, p1: float) -> tuple[bool, bool, bool, float]:
    """(rolled back, promoted, a peeked z-test would have rolled back, share of requests on the
    candidate until the verdict).
    """
    cells: dict[float, tuple[int, int]] = {}
    n, bad = [0, 0], [0, 0]
    share, peeked = 0.5, False
    verdict = ""
    ours = everyone = 0
    for _ in range(_MOVES):
        mine = int(rng.binomial(_BATCH, share))
        errors = int(rng.binomial(_BATCH - mine, p0)), int(rng.binomial(mine, p1))
        for arm, count in enumerate((_BATCH - mine, mine)):
            n[arm] += count
            bad[arm] += errors[arm]
        before = cells.get(share, (0, 0))
        cells[share] = before[0] + sum(errors), before[1] + errors[1]
        peeked = peeked or _z(n, bad) > 1.6448536269514722
        if not verdict:
            ours, everyone = ours + mine, everyone + _BATCH
            stages = [rate.RateCell(rho, *counts) for rho, counts in cells.items()]
            if rate.rollback_evidence(stages) >= -math.log(ALPHA):
                verdict = "worse"
            elif rate.promotion_evidence(stages, 1.0) >= -math.log(ALPHA):
                verdict = "better"
        share = thompson.propensity(n[0] - bad[0], bad[0], n[1] - bad[1], bad[1])
    return verdict == "worse", verdict == "better", peeked, ours / everyone


def _z(n: list[int], bad: list[int]) -> float:
    pool = sum(bad) / sum(n)
    spread = pool * (1 - pool) * (1 / max(1, n[0]) + 1 / max(1, n[1]))
    return (bad[1] / max(1, n[1]) - bad[0] / max(1, n[0])) / math.sqrt(spread) if spread else 0.0


def piece(seed: int, p0: float, p1: float) -> list[tuple[bool, bool, bool, float]]:
    """Some runs."""
    return [run(generator(41, int(p1 * 1000), seed, number), p0, p1) for number in range(_PIECE)]


def measure(work: Work) -> list[dict[str, Any]]:
    """Equal, worse and better."""
    rows = []
    for p0, p1, full in ((0.02, 0.02, 40), (0.02, 0.03, 12), (0.03, 0.02, 12)):
        pieces = 2 if work.quick else full
        found = work.map(f"bandit, {p0 * 100:g} → {p1 * 100:g} %", piece, [(s, p0, p1) for s in range(pieces)])  # fmt: skip
        runs = [each for part in found for each in part]
        counts = [sum(bool(each[at]) for each in runs) for at in range(3)]
        rows.append(
            {
                "p0": p0,
                "p1": p1,
                "runs": len(runs),
                "requests": _MOVES * _BATCH,
                "rolled_back": counts[0] / len(runs),
                "interval": wilson(counts[0], len(runs)),
                "promoted": counts[1] / len(runs),
                "peeked": counts[2] / len(runs),
                "exposure": float(np.mean([each[3] for each in runs])),
            }
        )
    return rows
