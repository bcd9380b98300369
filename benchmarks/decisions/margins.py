"""A candidate exactly at the margin: how often is it proved to be within it? And what proof costs.

Errors are within the margin when they are below 1.5 times stable's *or* less than 0.5 points
above, so the margin is whichever is wider. The greatest evidence so far is what counts.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from benchmarks.decisions import vectors
from benchmarks.decisions.chunks import Work, generator, wilson
from benchmarks.decisions.falsealarms import ALPHA, MEDIAN_NS, RAMP, SIGMA
from benchmarks.decisions.vectors import Floats
from hotswap.core.evidence import REFERENCE
from hotswap.stats.buckets import shift

RATIO: Final = 1.5
INCREASE: Final = 0.005
LATENCY: Final = 1.2
_LOOK: Final = 10  # requests between two looks
_STAGES: Final = (40_000, 40_000, 100_000)
_ENOUGH: Final = math.log(1 / ALPHA)
_PIECE: Final = 50


def error_cells(rng: np.random.Generator, rho: float, p0: float, p1: float, requests: int) -> Floats:  # fmt: skip
    """(looks, 4) running counts of one stage, in `MeanCell`'s order."""
    looks = requests // _LOOK
    ours = rng.binomial(_LOOK, rho, looks)
    our_errors = rng.binomial(ours, p1)
    their_errors = rng.binomial(_LOOK - ours, p0)
    kinds = (our_errors, ours - our_errors, their_errors, _LOOK - ours - their_errors)
    return np.asarray(np.stack(kinds, axis=1).cumsum(axis=0), np.float64)


def errors_peak(rng: np.random.Generator, p0: float, p1: float) -> tuple[float, float]:
    """The greatest log proof over a ramp, and the last one."""
    ratios: Floats = np.zeros(1)
    increases: Floats = np.zeros(1)
    peak = last = 0.0
    for rho, requests in zip(RAMP, _STAGES, strict=True):
        cells = error_cells(rng, rho, p0, p1, requests)
        factors = vectors.promotion_factors(RATIO)
        steps = vectors.rate_wealth(rho, cells[:, 0], cells[:, 2], RATIO, factors)
        adds = vectors.margin_promotion_wealth(rho, cells, p0, INCREASE)
        both = np.stack(
            [vectors.log_mean(ratios + steps), vectors.log_mean(increases + adds)], axis=-1
        )
        proof = vectors.log_mean(both)
        peak, last = max(peak, float(proof.max())), float(proof[-1])
        ratios, increases = ratios + steps[-1], increases + adds[-1]
    return peak, last


def latency_peaks(rng: np.random.Generator, ratio: float, requests: int) -> list[float]:
    """The greatest log proof of p50, p95 and p99 over so many compared requests."""
    ours = rng.random(requests) < 0.5
    ns = MEDIAN_NS * np.exp(SIGMA * rng.standard_normal(requests)) * np.where(ours, ratio, 1.0)
    at = vectors.buckets_of(ns)
    reference = vectors.freeze(at[:REFERENCE])
    at, ours = at[REFERENCE:], ours[REFERENCE:]
    peaks = []
    for place in vectors.QUANTILE_AT.values():
        threshold = int(reference.thresholds[place])
        beyond = at > np.where(ours, threshold + shift(LATENCY), threshold)
        mine = np.cumsum(ours[beyond]).astype(np.float64)
        theirs = np.cumsum(~ours[beyond]).astype(np.float64)
        wealth = vectors.latency_promotion_wealth(mine, theirs)
        peaks.append(float(vectors.log_mean(wealth).max(initial=0.0)))
    return peaks


def errors_piece(seed: int, runs: int, p0: float, p1: float) -> tuple[int, list[float]]:
    """(false promotions, last e-values)."""
    found = [errors_peak(generator(2, seed, run), p0, p1) for run in range(runs)]
    return sum(peak >= _ENOUGH for peak, _ in found), [math.exp(last) for _, last in found]


def latency_piece(seed: int, runs: int, ratio: float) -> tuple[list[int], int]:
    """How often each quantile was proved, and all three."""
    found = [latency_peaks(generator(3, seed, run), ratio, 20_000) for run in range(runs)]
    shown = np.array(found) >= _ENOUGH
    return [int(n) for n in shown.sum(axis=0)], int(shown.all(axis=1).sum())


def at_margin(work: Work) -> list[dict[str, Any]]:
    """False promotions at three base rates, and for latency."""
    rows = []
    pieces = max(2, work.runs(3_000) // _PIECE)
    for number, p0 in enumerate((0.001, 0.01, 0.02)):
        p1 = max(p0 * RATIO, p0 + INCREASE)
        seeds = [(number * 1000 + piece, _PIECE, p0, p1) for piece in range(pieces)]
        found = work.map(f"at the margin, errors {p0 * 100:g} %", errors_piece, seeds)
        hits, runs = sum(f[0] for f in found), pieces * _PIECE
        lasts = np.array([e for f in found for e in f[1]])
        rows.append(
            {
                "what": f"errors {p0 * 100:g} % → {p1 * 100:g} %",
                "runs": runs,
                "promotions": hits,
                "rate": hits / runs,
                "interval": wilson(hits, runs),
                "mean_last": float(lasts.mean()),
                "mean_last_error": float(lasts.std() / math.sqrt(runs)),
            }
        )
    found_l = work.map(
        "at the margin, latency × 1.2",
        latency_piece,
        [(piece, _PIECE, LATENCY) for piece in range(pieces)],
    )
    runs = pieces * _PIECE
    counts = {
        name: sum(f[0][place] for f in found_l) for place, name in enumerate(vectors.QUANTILE_AT)
    }
    counts["all three, as a promotion needs"] = sum(f[1] for f in found_l)
    for name, hits in counts.items():
        rows.append(
            {
                "what": f"latency × 1.2: {name}",
                "runs": runs,
                "promotions": hits,
                "rate": hits / runs,
                "interval": wilson(hits, runs),
            }
        )
    return rows


def proof_events(rng: np.random.Generator, rho: float, ratio: float, runs: int) -> Floats:
    """Error events of both arms until equal versions are proved to be within the ratio."""
    length = 1024
    ours = np.zeros((runs, 1))
    done = np.zeros(runs)
    seen = 0
    while (done == 0).any() and seen < 200_000:
        counts = ours[:, -1:] + np.cumsum(rng.random((runs, length)) < rho, axis=1)
        everyone = np.arange(seen + 1, seen + length + 1, dtype=np.float64)
        shown = vectors.rate_promotion(rho, counts, everyone - counts, ratio) >= _ENOUGH
        first = np.where(shown.any(axis=1), seen + shown.argmax(axis=1) + 1, 0)
        done = np.where(done == 0, first, done)
        ours, seen = counts, seen + length
    return done


def proofs(work: Work) -> list[dict[str, Any]]:
    """What it takes to prove that errors are below 1.5 times stable's when they are equal."""
    rows = []
    for rho in RAMP:
        runs = max(100, work.runs(2_000))
        events = proof_events(generator(4, int(rho * 100)), rho, RATIO, runs)
        rows.append(
            {
                "rho": rho,
                "runs": runs,
                "mean": float(events.mean()),
                "median": float(np.median(events)),
                "p90": float(np.quantile(events, 0.9)),
                "never": int((events == 0).sum()),
            }
        )
    return rows


def measure(work: Work) -> dict[str, Any]:
    """False promotions at the margin, and the price of a proof."""
    return {"margin": at_margin(work), "proof": proofs(work)}
