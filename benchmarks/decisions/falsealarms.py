"""Two equal versions, watched after every event: how often are they told apart?

A rollout is 1, 10 and 50 % of 40,000 requests each. Everything that the default guardrails see
is drawn: errors, invalid answers, and the latency of candidate and twin (from 50 % on of both
halves). One rollout's combined evidence is followed through every request.
"""

from __future__ import annotations

import math
import statistics
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.decisions import vectors
from benchmarks.decisions.chunks import Work, generator, wilson
from benchmarks.decisions.vectors import Floats, Ints
from hotswap.core.evidence import REFERENCE
from hotswap.stats import power
from hotswap.stats.rate import GRID

ALPHA: Final = 0.05
RAMP: Final = (0.01, 0.1, 0.5)
REQUESTS: Final = 40_000
ERRORS: Final = 0.01
INVALID: Final = 0.002
#: Log-normal latencies: median 5 ms, standard deviation of the logarithm 0.5.
MEDIAN_NS: Final = 5e6
SIGMA: Final = 0.5
#: Weights of errors, invalid answers and latency in the default set (`hotswap.core.analysis`).
WEIGHTS: Final = {"error_rate": 0.4, "invalid_rate": 0.2, "latency": 0.3}
_PIECE: Final = 100
_FINE: Final = 65_535
_LOOK: Final = 100  # requests between two looks at the sample ratio


class Drawn(NamedTuple):
    """One rollout's requests in order. ``arm``: 0 baseline, 1 twin, 2 candidate; ``outcome``:
    0 answered, 1 error, 2 invalid; ``bucket``: of the latency of all that are compared, else 0.
    """

    stage: Ints
    arm: Ints
    outcome: Ints
    bucket: Ints


def draw(rng: np.random.Generator, requests: int = REQUESTS, errors: float = ERRORS) -> Drawn:
    """Both arms alike."""
    stages, arms = [], []
    for number, rho in enumerate(RAMP):
        toss = rng.random(requests)
        twin = (toss >= 1.0 - rho) & (rho < 0.5)
        arms.append(np.where(toss < rho, 2, np.where(twin, 1, 0)))
        stages.append(np.full(requests, number))
    total = requests * len(RAMP)
    chance = rng.random(total)
    outcome = np.where(chance < errors, 1, np.where(chance < errors + INVALID, 2, 0))
    drawn = Drawn(np.concatenate(stages), np.concatenate(arms), outcome, np.zeros(total, np.int64))
    of = compared(drawn)
    drawn.bucket[of] = _latencies()[rng.integers(_FINE, size=len(of), dtype=np.uint16)]
    return drawn


@lru_cache(maxsize=1)
def _latencies() -> Ints:
    """The buckets of 65,535 evenly spread quantiles: one of them is a log-normal latency."""
    normal = statistics.NormalDist(math.log(MEDIAN_NS), SIGMA)
    logs = [normal.inv_cdf((k + 0.5) / _FINE) for k in range(_FINE)]
    return vectors.buckets_of(np.exp(np.array(logs)))


def compared(drawn: Drawn) -> Ints:
    """Which requests' latencies are compared, in order: of candidate and twin, or of both halves."""
    return np.flatnonzero((drawn.outcome != 1) & ((drawn.arm > 0) | (drawn.stage == 2)))


def events_path(drawn: Drawn, kind: int) -> tuple[Ints, Floats]:
    """Where the events of that outcome are, and the e-value after each (before the first: 1)."""
    at = np.flatnonzero(drawn.outcome == kind)
    tables = [vectors.bets(rho, 1.0, GRID) for rho in RAMP]
    steps = np.array([[lose, win] for win, lose in tables])  # (stage, candidate?, bet)
    logs = np.cumsum(steps[drawn.stage[at], (drawn.arm[at] == 2).astype(np.int64)], axis=0)
    return at, np.concatenate(([1.0], np.exp(logs).mean(axis=1)))


def evidence_path(drawn: Drawn) -> tuple[Ints, Floats]:
    """Every request at which the combined e-value changes, and the e-value after it."""
    of = compared(drawn)
    # The first of both arms fix the reference; latency begins anew after them.
    reference = vectors.freeze(drawn.bucket[of[:REFERENCE]])
    of = of[REFERENCE:]
    latency = vectors.latency_path(reference, drawn.bucket[of], drawn.arm[of] == 2)
    latency = np.concatenate(([1.0], latency))
    errors_at, errors = events_path(drawn, 1)
    invalid_at, invalid = events_path(drawn, 2)
    flags = np.zeros(len(drawn.arm), np.bool_)
    for places in (of, errors_at, invalid_at):
        flags[places] = True
    at = np.flatnonzero(flags)
    share = {name: weight / sum(WEIGHTS.values()) for name, weight in WEIGHTS.items()}
    combined = (
        share["error_rate"] * errors[np.searchsorted(errors_at, at, "right")]
        + share["invalid_rate"] * invalid[np.searchsorted(invalid_at, at, "right")]
        + share["latency"] * latency[np.searchsorted(of, at, "right")]
    )
    return at, combined


def ratio_peak(drawn: Drawn) -> float:
    """The greatest log evidence of a sample-ratio mismatch at a look every 100 requests."""
    wealth: Floats = np.zeros(1)
    peak = 0.0
    for number, rho in enumerate(RAMP):
        ours = (drawn.arm[drawn.stage == number] == 2).reshape(-1, _LOOK).sum(axis=1).cumsum()
        everyone = np.arange(1, len(ours) + 1) * _LOOK
        steps = vectors.split_wealth(rho, ours.astype(np.float64), (everyone - ours) * 1.0)
        peak = max(peak, float(vectors.log_mean(wealth + steps).max()))
        wealth = wealth + steps[-1]
    return peak


def aa_piece(seed: int, runs: int, errors: float) -> tuple[int, int, float, float, list[float]]:
    """(false rollbacks, false sample-ratio alarms, sum and sum of squares of the last e-values,
    log10 of the greatest e-values).
    """
    hits = alarms = 0
    total = squares = 0.0
    peaks = []
    for run in range(runs):
        drawn = draw(generator(1, seed, run), errors=errors)
        _, path = evidence_path(drawn)
        peak, last = float(path.max()), float(path[-1])
        hits += peak >= 1.0 / ALPHA
        alarms += ratio_peak(drawn) >= math.log(1000)
        total += last
        squares += last * last
        peaks.append(math.log10(peak))
    return hits, alarms, total, squares, peaks


def aa(work: Work, errors: float, seed: int, full: int) -> dict[str, Any]:
    """``full`` rollouts of equal versions."""
    pieces = max(2, work.runs(full) // _PIECE) if not work.quick else 2
    each = _PIECE if not work.quick else 20
    found = work.map(
        f"A/A, errors {errors * 100:g} %",
        aa_piece,
        [(seed + piece, each, errors) for piece in range(pieces)],
    )
    runs = pieces * each
    hits, alarms = sum(f[0] for f in found), sum(f[1] for f in found)
    mean = sum(f[2] for f in found) / runs
    deviation = math.sqrt(max(0.0, sum(f[3] for f in found) / runs - mean**2) / runs)
    return {
        "errors": errors,
        "runs": runs,
        "requests": REQUESTS * len(RAMP),
        "rollbacks": hits,
        "rate": hits / runs,
        "interval": wilson(hits, runs),
        "ratio_alarms": alarms,
        "ratio_rate": alarms / runs,
        "mean_last": mean,
        "mean_last_error": deviation,
        "peaks": [round(peak, 3) for piece in found for peak in piece[4]],
    }


def exact() -> list[dict[str, Any]]:
    """F1's type I by dynamic programming: the odds of ever firing on equal arms."""
    return [
        {"rho": rho, **{str(events): power.false_alarm(events, rho) for events in (200, 2000)}}
        for rho in RAMP
    ]


def measure(work: Work) -> dict[str, Any]:
    """Both base rates, and what dynamic programming says of errors alone."""
    return {
        "aa": [aa(work, 0.01, 0, 10_000), aa(work, 0.001, 10_000, 2_500)],
        "exact": exact(),
    }
