"""How many requests until a worse candidate is found, against what no test can beat.

Errors and labels drive the production formulas themselves, through the boundary in counts at
which they fire; latency is followed request by request. ``alone``: the metric has the whole
level of 5 %; ``set``: it has its share among the default guardrails, as in a rollout.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.decisions import vectors
from benchmarks.decisions.chunks import Work, generator
from benchmarks.decisions.falsealarms import ALPHA, MEDIAN_NS, SIGMA, WEIGHTS
from benchmarks.decisions.vectors import Floats
from hotswap.core.evidence import REFERENCE
from hotswap.stats import pairs, power, rate

RHOS: Final = (0.01, 0.1, 0.5)
ALONE: Final = math.log(1 / ALPHA)


def in_set(metric: str) -> float:
    """The log evidence at which that metric alone makes the default set roll back."""
    return ALONE + math.log(sum(WEIGHTS.values()) / WEIGHTS[metric])


class Delays(NamedTuple):
    """One run each: requests in all, those of the candidate, its failures; -1: not found."""

    requests: Floats
    candidate: Floats
    failures: Floats


def error_delays(rng: np.random.Generator, rho: float, p0: float, p1: float, enough: float, runs: int) -> Delays:  # fmt: skip
    """F1 after every request. Only failures move it, so only failures are drawn."""
    both = rho * p1 + (1.0 - rho) * p0
    theta = rho * p1 / both
    block = 2048
    bounds = vectors.boundary(
        lambda total, ours: rate.rollback_evidence([rate.RateCell(rho, total, ours)]),
        enough,
        np.arange(block * 8 + 1),
    )
    ours: Floats = np.zeros(runs)
    events: Floats = np.full(runs, -1.0)
    hits: Floats = np.full(runs, -1.0)
    for start in range(0, block * 8, block):
        counts = ours[:, None] + np.cumsum(rng.random((runs, block)) < theta, axis=1)
        fired = counts >= bounds[start + 1 : start + block + 1]
        first = fired.argmax(axis=1)
        new = fired.any(axis=1) & (events < 0)
        events[new] = start + 1 + first[new]
        hits[new] = counts[new, first[new]]
        ours = counts[:, -1]
        if (events > 0).all():
            break
    found = events > 0
    good = np.zeros(runs)
    whole = events[found].astype(np.int64)
    if both < 1.0:
        good[found] = rng.negative_binomial(whole, both)
    served = rng.binomial(good.astype(np.int64), rho * (1.0 - p1) / max(1e-300, 1.0 - both))
    return Delays(np.where(found, events + good, -1.0), np.where(found, hits + served, -1.0), hits)


def row(delays: Delays, bound: float, **what: Any) -> dict[str, Any]:
    """Means and quantiles over the runs that found it, and how many did not."""
    found = delays.requests > 0
    n = delays.requests[found]
    return {
        **what,
        "runs": len(found),
        "missed": int((~found).sum()),
        "mean": float(n.mean()),
        "median": float(np.median(n)),
        "p90": float(np.quantile(n, 0.9)),
        "bound": bound,
        "ratio": float(n.mean()) / bound,
        "ratio_error": float(n.std() / math.sqrt(len(n))) / bound,
        "candidate": float(delays.candidate[found].mean()),
        "failures": float(delays.failures[found].mean()),
        "times_bound": [
            round(x / bound, 3) for x in np.quantile(n, np.linspace(0, 1, 201)).tolist()
        ],
    }


def errors_row(rho: float, p0: float, p1: float, runs: int, which: str) -> dict[str, Any]:
    """One cell of the table."""
    enough = ALONE if which == "alone" else in_set("error_rate")
    rng = generator(10, int(rho * 1000), int(p0 * 1e5), int(p1 * 1e5), which == "set")
    delays = error_delays(rng, rho, p0, p1, enough, runs)
    bound = power.lower_bound(rho, p0, p1)
    return row(delays, bound, rho=rho, p0=p0, p1=p1, which=which)


def latency_bound(rho: float, ratio: float, sigma: float = SIGMA) -> float:
    """Requests that any test needs on average: ln 20 over the mutual information of time and arm.

    >>> [round(latency_bound(rho, 1.2), -1) for rho in (0.01, 0.1, 0.5)]
    [4560.0, 500.0, 180.0]
    """
    shift = math.log(ratio) / sigma
    z = np.linspace(-9.0, 9.0 + shift, 20_001)
    stable = np.exp(-0.5 * z * z)
    slow = np.exp(-0.5 * (z - shift) ** 2)
    stable, slow = stable / stable.sum(), slow / slow.sum()
    both = rho * slow + (1.0 - rho) * stable
    told = rho * slow @ np.log(slow / both) + (1.0 - rho) * stable @ np.log(stable / both)
    return float(ALONE / told)


def latency_piece(seed: int, runs: int, ratio: float, enough: float) -> tuple[list[float], list[float]]:  # fmt: skip
    """(compared requests from the first bet, the candidate's among them) of each run, candidate
    and its counterpart each with a coin of one half; -1: not found.
    """
    first_bets, candidates = [], []
    for run in range(runs):
        rng = generator(11, seed, run)
        length = 20_000
        ours = rng.random(length) < 0.5
        ns = MEDIAN_NS * np.exp(SIGMA * rng.standard_normal(length)) * np.where(ours, ratio, 1.0)
        at = vectors.buckets_of(ns)
        reference = vectors.freeze(at[:REFERENCE])
        path = vectors.latency_path(reference, at[REFERENCE:], ours[REFERENCE:])
        fired = path >= math.exp(enough)
        where = int(fired.argmax()) + 1 if fired.any() else -1
        first_bets.append(float(where))
        mine = ours[REFERENCE : REFERENCE + where].sum()
        candidates.append(float(mine) if where > 0 else -1.0)
    return first_bets, candidates


def latency_rows(work: Work, ratio: float) -> list[dict[str, Any]]:
    """Latency at each share: below one half candidate and twin are compared."""
    rows = []
    for which, enough in (("alone", ALONE), ("set", in_set("latency"))):
        pieces = [(piece, work.runs(2_000) // 20 + 1, ratio, enough) for piece in range(20)]
        found = work.map(f"latency × {ratio:g} ({which})", latency_piece, pieces)
        compared = np.array([x for f in found for x in f[0]])
        ours = np.array([x for f in found for x in f[1]])
        for rho in RHOS:
            share = min(1.0, 2.0 * rho)  # of the requests, those that are compared
            requests = np.where(compared > 0, compared / share, -1.0)
            delays = Delays(requests, ours, np.zeros(len(ours)))
            cell = row(delays, latency_bound(0.5, ratio) / share, rho=rho, ratio_of_times=ratio, which=which)  # fmt: skip
            cell["bound_all"] = latency_bound(rho, ratio)
            cell["reference"] = REFERENCE / share
            cell["latencies"] = float(compared[compared > 0].mean())
            rows.append(cell)
    return rows


def paired_row(runs: int, seed: int, worse: float, better: float) -> dict[str, Any]:
    """Labels of requests that both answered: McNemar's e-process."""
    rng = generator(12, seed)
    events = 4_000
    bounds = vectors.boundary(
        lambda total, ours: pairs.mcnemar_evidence(pairs.Pairs(ours, total - ours, 0)),
        ALONE,
        np.arange(events + 1),
    )
    differ = worse + better
    counts = np.cumsum(rng.random((runs, events)) < worse / differ, axis=1)
    fired = counts >= bounds[1:]
    found = fired.any(axis=1)
    first = np.where(found, fired.argmax(axis=1) + 1, -1)
    labels = np.full(runs, -1.0)
    labels[found] = first[found] + rng.negative_binomial(first[found], differ)
    share = worse / differ
    told = differ * (share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share)))
    failures = np.where(found, counts[np.arange(runs), np.maximum(first, 1) - 1], -1.0)
    return row(
        Delays(labels, labels, failures),
        ALONE / told,
        what=f"paired, {differ * 100:g} % disagreement",
        rho=1.0,
    )


def unpaired_delays(rng: np.random.Generator, rho: float, p0: float, p1: float, runs: int, look: int) -> Delays:  # fmt: skip
    """Labels of one arm each, by the additive bets (`stats.margin`), a look every ``look`` labels:
    a ratio of 1.1 lies below the first bet of F1.
    """
    cells = np.array([rho * p1, rho * (1 - p1), (1 - rho) * p0, (1 - rho) * (1 - p0)])
    counts: Floats = np.zeros((runs, 4))
    labels: Floats = np.full(runs, -1.0)
    ours: Floats = np.full(runs, -1.0)
    for step in range(1, 6_001):
        counts += rng.multinomial(look, cells, size=runs)
        wealth = vectors.margin_wealth(rho, counts, p0, 0.0)
        new = (vectors.log_mean(wealth) >= ALONE) & (labels < 0)
        labels[new] = step * look
        ours[new] = counts[new, :2].sum(axis=1)
        if (labels > 0).all():
            break
    return Delays(labels, ours, np.zeros(runs))


def unpaired_row(rho: float, runs: int) -> dict[str, Any]:
    """Accuracy 90 → 89 %."""
    bound = power.lower_bound(rho, 0.10, 0.11)
    look = max(20, int(bound / 500))
    delays = unpaired_delays(generator(13, int(rho * 1000)), rho, 0.10, 0.11, runs, look)
    return row(delays, bound, what="unpaired", rho=rho, look=look)


def measure(work: Work) -> dict[str, Any]:
    """Every row of the table."""
    cells = [
        (rho, p0, p1, work.runs(5_000), which)
        for which in ("alone", "set")
        for p0, p1 in ((0.001, 0.01), (0.01, 0.02), (0.001, 0.002), (0.001, 0.5), (0.001, 1.0))
        for rho in RHOS
    ]
    runs = work.runs(1_000)
    labels = work.map("accuracy −1 point, unpaired", unpaired_row, [(rho, runs) for rho in RHOS])
    return {
        "errors": work.map("delay: errors", errors_row, cells),
        "latency": latency_rows(work, 1.2),
        "labels": [
            paired_row(work.runs(5_000), 0, 0.03, 0.02),
            paired_row(work.runs(5_000), 1, 0.06, 0.05),
            *labels,
        ],
    }
