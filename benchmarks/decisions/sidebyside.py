"""All engines on the same streams: 200,000 requests at 1,000 a minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from benchmarks.decisions import rivals
from benchmarks.decisions.chunks import Work, generator, wilson
from benchmarks.decisions.rivals import STEP, Stream
from benchmarks.decisions.vectors import Floats, Ints

STEPS: Final = 2_000
Engine = Callable[[Stream], Ints]

ENGINES: Final[dict[str, Engine]] = {
    "hotswap": rivals.ours,
    "threshold 2 %": lambda stream: rivals.threshold(stream, 0.02, 3),
    "threshold 0.5 %": lambda stream: rivals.threshold(stream, 0.005, 3),
    "z-test, peeked each 1k": rivals.peeked,
    "asymptotic sequence": rivals.asymptotic,
    "Mann–Whitney judge": rivals.mann_whitney,
}
#: The slow one sees so many runs of each stream.
_FEWER: Final = {"Mann–Whitney judge": 200}


def level(value: float) -> Floats:
    """A rate that does not change."""
    return np.full(STEPS, value)


def ramp() -> Floats:
    """1, 10 and 50 %, a third of the time each."""
    return np.repeat([0.01, 0.1, 0.5], [667, 667, 666])


def along(*rates: float) -> Floats:
    """A base rate that changes with the ramp."""
    return np.repeat(rates, [667, 667, 666])


def bursts(base: float) -> Floats:
    """Ten minutes in each hour with twenty times the errors, on both arms."""
    minute = (np.arange(STEPS) // rivals.MINUTE) % 60
    return np.where((minute >= 30) & (minute < 40), 20 * base, base)


def scenarios() -> dict[str, tuple[str, Floats, Floats, Floats]]:
    """Name → (what should happen, rho, stable's rate, the candidate's rate)."""
    found: dict[str, tuple[str, Floats, Floats, Floats]] = {}
    for rho in (0.01, 0.1, 0.5):
        at = f"{rho * 100:g} %"
        for p in (0.01, 0.001):
            found[f"A/A, errors {p * 100:g} %, candidate {at}"] = (
                "equal", level(rho), level(p), level(p),
            )  # fmt: skip
        for p0, p1 in ((0.01, 0.02), (0.001, 0.01)):
            found[f"errors {p0 * 100:g} → {p1 * 100:g} %, candidate {at}"] = (
                "worse", level(rho), level(p0), level(p1),
            )  # fmt: skip
    rising, falling = along(0.005, 0.01, 0.02), along(0.02, 0.01, 0.005)
    found["A/A, errors rise 0.5 → 1 → 2 % along the ramp"] = ("equal", ramp(), rising, rising)
    found["A/A, incidents: errors × 20 on both"] = ("equal", level(0.1), bursts(0.01), bursts(0.01))
    found["A/A, incidents: errors × 20 on both, from 0.1 %"] = (
        "equal", level(0.1), bursts(0.001), bursts(0.001),
    )  # fmt: skip
    found["× 1.3, errors fall 2 → 1 → 0.5 % along the ramp"] = (
        "worse", ramp(), falling, 1.3 * falling,
    )  # fmt: skip
    found["× 2, errors fall 2 → 1 → 0.5 % along the ramp"] = (
        "worse", ramp(), falling, 2 * falling,
    )  # fmt: skip
    found["× 2 amid incidents: errors × 20 on both"] = (
        "worse", level(0.1), bursts(0.01), np.minimum(1.0, 2 * bursts(0.01)),
    )  # fmt: skip
    return found


def piece(number: int, name: str, seed: int, runs: int) -> dict[str, list[int]]:
    """Engine → the step at which each run was rolled back."""
    _, rho, p0, p1 = scenarios()[name]
    stream = rivals.draw(generator(20, number, seed), rho, p0, p1, runs)
    found = {}
    for engine, decide in ENGINES.items():
        few = _FEWER.get(engine)
        part = stream if few is None else Stream(rho, *(each[: few // 5] for each in stream[1:]))
        found[engine] = [int(step) for step in decide(part)]
    return found


def measure(work: Work) -> list[dict[str, Any]]:
    """One row a scenario, with every engine's verdicts."""
    rows = []
    each = work.runs(2_000) // 5
    for number, (name, (truth, *_)) in enumerate(scenarios().items()):
        pieces = [(number, name, seed, each) for seed in range(5)]
        found = work.map(name, piece, pieces)
        row: dict[str, Any] = {"what": name, "truth": truth, "engines": {}}
        for engine in ENGINES:
            steps = np.array([step for part in found for step in part[engine]])
            hits = steps[steps > 0]
            row["engines"][engine] = {
                "runs": len(steps),
                "share": len(hits) / len(steps),
                "interval": wilson(len(hits), len(steps)),
                "median": float(np.median(hits)) * STEP if len(hits) else None,
            }
        rows.append(row)
    return rows
