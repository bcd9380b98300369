"""Little traffic: so few requests between two looks that one error is a large share.

Both versions fail in 0.5 % of requests. The candidate has so many requests in each step; stable
has as many (a half each). A rollout is looked at 50 times; the rules that count failed samples
are also shown for the 10 samples that their documentation uses.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from benchmarks.decisions import vectors
from benchmarks.decisions.chunks import Work, generator, wilson

SIZES: Final = (20, 60, 300, 1_000)
LOOKS: Final = 50
BASE: Final = 0.005
_LEVEL: Final = 0.01
_ENOUGH: Final = float(np.log(20))


def failed_samples(errors: vectors.Ints, size: int, most: int, looks: int) -> float:
    """Share of rollouts with more than ``most`` samples above 1 % errors within so many looks."""
    bad = (errors[:, :looks] > _LEVEL * size).sum(axis=1)
    return float((bad > most).mean())


def cell(size: int, worse: float, runs: int) -> dict[str, Any]:
    """All rules on the same rollouts; ``worse``: added to the candidate's rate."""
    rng = generator(30, size, int(worse * 1000))
    ours = rng.binomial(size, BASE + worse, size=(runs, LOOKS))
    stable = rng.binomial(size, BASE, size=(runs, LOOKS))
    mine, other = ours.cumsum(axis=1) * 1.0, stable.cumsum(axis=1) * 1.0
    fired = vectors.rate_rollback(0.5, mine, other) >= _ENOUGH
    hits = fired.any(axis=1)
    first = fired.argmax(axis=1)[hits] + 1
    return {
        "size": size,
        "runs": runs,
        "worse": worse,
        "hotswap": float(hits.mean()),
        "interval": wilson(int(hits.sum()), runs),
        "hotswap_10": float(fired[:, :10].any(axis=1).mean()),
        "looks": float(np.median(first)) if len(first) else None,
        # Flagger counts a failed check up to its threshold: two end it.
        "argo_0": failed_samples(ours, size, 0, 10),
        "argo_3": failed_samples(ours, size, 3, 10),
        "flagger_2": failed_samples(ours, size, 1, 10),
        "argo_3_50": failed_samples(ours, size, 3, LOOKS),
        "flagger_2_50": failed_samples(ours, size, 1, LOOKS),
    }


def measure(work: Work) -> list[dict[str, Any]]:
    """Equal versions, and one that fails in 5 points more."""
    runs = work.runs(10_000)
    return [cell(size, worse, runs) for worse in (0.0, 0.05) for size in SIZES]
