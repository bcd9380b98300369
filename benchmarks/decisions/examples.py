"""A few rollouts followed by the real machine, to be drawn."""

from __future__ import annotations

import math
from typing import Any, Final

from benchmarks.decisions.chunks import Work, generator
from benchmarks.decisions.machine import Machine

_BODY: Final[dict[str, Any]] = {
    "strategy": "canary",
    "steps": [
        {"weight": 1}, {"hold_seconds": 120}, {"weight": 10}, {"hold_seconds": 120},
        {"weight": 50}, {"hold_seconds": 120},
    ],
    "bake_seconds": 30,
    "watch_seconds": 0,
}  # fmt: skip
#: Name → stable's errors, the candidate's, its times over stable's.
CASES: Final = {
    "equal": (0.01, 0.01, 1.0),
    "better: errors 1 → 0.5 %": (0.01, 0.005, 1.0),
    "errors 1 → 2 %": (0.01, 0.02, 1.0),
    "latency × 1.2": (0.01, 0.01, 1.2),
    "errors 1 → 20 %": (0.01, 0.2, 1.0),
}


def follow(number: int, name: str) -> dict[str, Any]:
    """Log10 evidence against the candidate at each second, the weights, and the end."""
    p0, p1, slow = CASES[name]
    rng = generator(80, number)
    machine = Machine(_BODY, rng, p0=p0, p1=p1, rate=300.0, seconds=1.0, slow=slow)
    points = []
    while not machine.rollout.final and machine.now < 3_600:
        status = machine.tick()
        if machine.analysis is not None and status.state in ("running", "rolling_back"):
            against = machine.analysis.against / math.log(10)
            points.append((machine.now, round(max(-3.0, min(3.0, against)), 4)))
    status = machine.rollout.status
    return {
        "name": name,
        "points": points,
        "moves": [(at, state, message) for at, state, message in machine.moves],
        "state": status.state,
        "reason": status.reason,
        "seconds": machine.now,
        "candidate": machine.candidate_requests,
    }


def machine_piece(seed: int, runs: int, p1: float) -> tuple[int, int]:
    """(rolled back, still running or promoted) of whole rollouts on the real machine."""
    back = 0
    for run in range(runs):
        rng = generator(81, seed, run)
        machine = Machine(_BODY, rng, p0=0.01, p1=p1, rate=100.0, seconds=2.0)
        machine.run(until=360.0, states=("rolling_back", "promoting"))
        back += machine.rollout.status.state == "rolling_back"
    return back, runs - back


def measure(work: Work) -> dict[str, Any]:
    """The examples, and as many equal versions as are quickly run on the real machine."""
    found = work.map("examples on the real machine", follow, list(enumerate(CASES)))
    pieces, runs = (2, 10) if work.quick else (10, 20)
    equal = work.map("A/A on the real machine", machine_piece, [(s, runs, 0.01) for s in range(pieces)])  # fmt: skip
    worse = work.map("1 → 3 % on the real machine", machine_piece, [(s, runs, 0.03) for s in range(pieces)])  # fmt: skip
    return {
        "paths": found,
        "runs": pieces * runs,
        "equal_back": sum(f[0] for f in equal),
        "worse_back": sum(f[0] for f in worse),
    }
