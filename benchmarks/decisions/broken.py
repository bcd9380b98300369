"""A candidate that is plainly broken: how many requests reach it before it is out.

By evidence alone after every request (`delays`); by the real machine, which ticks five times a
second; and by the breaker that every worker has, which needs no tick.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from benchmarks.decisions.chunks import Work, generator
from benchmarks.decisions.delays import RHOS, error_delays, in_set
from benchmarks.decisions.machine import Machine
from hotswap.serving.breaker import Breaker

_BASE: Final = 0.001
_TICK: Final = 0.2
#: Requests that stable had answered in each worker before the rollout began.
_BEFORE: Final = 500


def breaker_requests(rng: np.random.Generator, rho: float, p1: float, workers: int) -> int:
    """Requests to the candidate, over all workers, until the first breaker trips: it takes the
    candidate out of every route. At most 2,000.
    """
    breakers = [Breaker() for _ in range(workers)]
    for breaker in breakers:
        for _ in range(_BEFORE // workers):
            breaker.stable(failed=False, now_ns=0)
    ours = 0
    while ours < 2_000:
        toss = rng.random((1_000, 3))
        for coin, fails, where in toss.tolist():
            breaker = breakers[int(where * workers)]
            if coin >= rho:
                breaker.stable(failed=fails < _BASE, now_ns=0)
                continue
            ours += 1
            failed = fails < p1
            if breaker.candidate(failed=failed):
                return ours
            if failed:  # stable answers in its place, and this is counted for it
                breaker.stable(failed=False, now_ns=0)
    return ours


def machine_requests(rng: np.random.Generator, rho: float, p1: float, rate: float) -> int:
    """Requests to the candidate until the machine takes it back, windows folded at each tick."""
    body = {"strategy": "canary", "steps": [{"weight": rho * 100}, {"hold_seconds": 3600}]}
    machine = Machine(body, rng, p0=_BASE, p1=p1, rate=rate, seconds=_TICK)
    machine.run(until=600.0, states=("rolling_back",))
    return machine.candidate_requests


def row(rho: float, p1: float, runs: int) -> dict[str, Any]:
    """All ways, on average and at the 90th percentile."""
    rng = generator(60, int(rho * 100), int(p1 * 100))
    by_evidence = error_delays(rng, rho, _BASE, p1, in_set("error_rate"), runs).candidate
    found: dict[str, Any] = {
        "rho": rho,
        "p1": p1,
        "runs": runs,
        "evidence": float(by_evidence.mean()),
    }
    for rate in (20.0, 200.0):
        seen = [machine_requests(rng, rho, p1, rate) for _ in range(runs // 10)]
        found[f"machine_{rate:g}"] = float(np.mean(seen))
    for workers in (1, 4):
        seen = [breaker_requests(rng, rho, p1, workers) for _ in range(runs // 4)]
        found[f"breaker_{workers}"] = float(np.mean(seen))
    return found


def measure(work: Work) -> list[dict[str, Any]]:
    """Half of its requests fail, or all."""
    runs = work.runs(2_000)
    return work.map("a broken candidate", row, [(rho, p1, runs) for p1 in (0.5, 1.0) for rho in RHOS])  # fmt: skip
