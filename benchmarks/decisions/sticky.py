"""Sticky traffic with heavy users: what counting each request would do, and what counting each
user's first error does. Errors come in users: some never fail, some often do.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from benchmarks.decisions import vectors
from benchmarks.decisions.chunks import Work, generator, wilson
from benchmarks.decisions.falsealarms import ALPHA
from benchmarks.decisions.vectors import Bools, Ints
from hotswap.core.units import Units
from hotswap.core.windows import ERROR, UnitEvent

USERS: Final = 2_000
REQUESTS: Final = 50_000
_WORKERS: Final = 4
_PIECE: Final = 100


def draw(rng: np.random.Generator, rho: float) -> tuple[Ints, Bools, Bools]:
    """(user, failed, on the candidate) of each request. Activity is Pareto-like (the heaviest
    users send thousands), errors 1 % on average, each user's rate drawn from Beta(0.1, 9.9).
    """
    activity = rng.pareto(1.2, USERS) + 0.05
    user = rng.choice(USERS, size=REQUESTS, p=activity / activity.sum())
    failed = rng.random(REQUESTS) < rng.beta(0.1, 9.9, USERS)[user]
    return user, failed, (rng.random(USERS) < rho)[user]


def fires(rho: float, ours: Bools) -> bool:
    """Whether F1 ever fires, looked at after each of these events."""
    mine = np.cumsum(ours).astype(np.float64)
    everyone = np.arange(1, len(mine) + 1, dtype=np.float64)
    if not len(mine):
        return False
    return bool(vectors.rate_rollback(rho, mine, everyone - mine).max() >= -math.log(ALPHA))


def first_of(user: Ints, split: Ints | None = None) -> Ints:
    """The places of each user's first event, in order (in each worker, where they are split)."""
    key = user if split is None else user * _WORKERS + split
    return np.sort(np.unique(key, return_index=True)[1])


def production_first(user: Ints) -> Ints:
    """The same by `hotswap.core.units.Units`, one event at a time."""
    units = Units()
    return np.array(
        [at for at, unit in enumerate(user.tolist()) if units.first([UnitEvent(unit, 2, ERROR)])],
        np.int64,
    )


def piece(seed: int, rho: float) -> Ints:
    """False rollbacks of equal versions: by request, by user in each worker, by user."""
    hits = np.zeros(3, np.int64)
    for run in range(_PIECE):
        rng = generator(40, int(rho * 1000), seed, run)
        user, failed, ours = draw(rng, rho)
        worker = rng.integers(_WORKERS, size=REQUESTS)
        user, ours, worker = user[failed], ours[failed], worker[failed]
        hits += (
            fires(rho, ours),
            fires(rho, ours[first_of(user, worker)]),
            fires(rho, ours[first_of(user)]),
        )
    return hits


def measure(work: Work) -> list[dict[str, Any]]:
    """At 10 and 50 %."""
    rows = []
    pieces = 1 if work.quick else 15
    for rho in (0.1, 0.5):
        found = work.map(f"sticky, heavy users, {rho * 100:g} %", piece, [(s, rho) for s in range(pieces)])  # fmt: skip
        hits, runs = np.sum(found, axis=0), pieces * _PIECE
        names = ("each request", "a user's first error in each worker", "a user's first error")
        for name, count in zip(names, hits.tolist(), strict=True):
            rows.append(
                {
                    "rho": rho,
                    "what": name,
                    "runs": runs,
                    "rate": count / runs,
                    "interval": wilson(count, runs),
                }
            )
    return rows
