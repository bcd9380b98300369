"""What deciding costs: a thousand rollouts in one tick, and a rollout of seven days."""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

import msgspec

from benchmarks.decisions.chunks import Work, generator
from benchmarks.decisions.machine import Machine
from hotswap.core.decide import decide
from hotswap.core.rollout import Rollout

_ROLLOUTS: Final = 1_000
_DAY: Final = 86_400.0

#: Three weights, each for some days, a day of bake, a day of watch.
WEEK: Final[dict[str, Any]] = {
    "strategy": "canary",
    "steps": [
        {"weight": 5}, {"hold_hours": 40}, {"weight": 25}, {"hold_hours": 40},
        {"weight": 50}, {"hold_hours": 40},
    ],
    "bake_hours": 24,
    "watch_hours": 24,
}  # fmt: skip
RAMP: Final[dict[str, Any]] = {
    "strategy": "canary",
    "steps": [{"weight": w} if w else {"hold_seconds": 60} for w in (1, 0, 10, 0, 50, 0)],
}


def in_progress(seed: int) -> Machine:
    """A rollout in its third stage, with evidence of 200 requests a second for 150 seconds."""
    machine = Machine(RAMP, generator(70, seed), p0=0.005, p1=0.005, rate=200.0, seconds=5.0)
    machine.run(until=150.0)
    return machine


def piece(first: int, count: int) -> list[Machine]:
    """Several of them."""
    return [in_progress(seed) for seed in range(first, first + count)]


def _copied(rollout: Rollout) -> Rollout:
    """The same with evidence that nobody has judged yet."""
    evidence = msgspec.structs.replace(rollout.evidence, reports=rollout.evidence.reports + 1)
    return msgspec.structs.replace(rollout, evidence=evidence)


def thousand(work: Work, number: int = _ROLLOUTS) -> dict[str, Any]:
    """Seconds for one tick of all, each with evidence and a latency reference of its own."""
    chunk = number // 20
    machines = [m for part in work.map("rollouts in progress", piece, [(at, chunk) for at in range(0, number, chunk)]) for m in part]  # fmt: skip
    taken, computed, idle = [], [], []
    for _ in range(7):
        # Evidence that is looked at for the first time, as after every report of a worker.
        fresh = [_copied(machine.rollout) for machine in machines]
        begin, busy = time.perf_counter(), time.process_time()
        for rollout, machine in zip(fresh, machines, strict=True):
            decide(rollout, machine.seen(), 0.2)
        taken.append(time.perf_counter() - begin)
        computed.append(time.process_time() - busy)
        begin = time.perf_counter()
        for rollout, machine in zip(fresh, machines, strict=True):
            decide(rollout, machine.seen(), 0.2)
        idle.append(time.perf_counter() - begin)
    states = [machine.rollout.status.state for machine in machines]
    return {
        "rollouts": number,
        "seconds": statistics.median(taken),
        "best": min(taken),
        "processor": statistics.median(computed),
        "idle": statistics.median(idle),
        "running": states.count("running"),
        "buckets": statistics.mean(
            sum(len(arm.latency) for stage in m.rollout.evidence.stages for arm in (stage.twin, stage.candidate, stage.baseline))
            for m in machines
        ),
    }  # fmt: skip


def week(seconds: float, rate: float) -> dict[str, Any]:
    """A rollout of seven days of simulated time, a tick every so many seconds."""
    machine = Machine(WEEK, generator(71), p0=0.002, p1=0.002, rate=rate, seconds=seconds)
    begin, busy = time.perf_counter(), time.process_time()
    status = machine.run(until=30 * _DAY)
    return {
        "processor": time.process_time() - busy,
        "tick": seconds,
        "rate": rate,
        "ticks": machine.ticks,
        "state": status.state,
        "days": machine.now / _DAY,
        "seconds": time.perf_counter() - begin,
        "decide_seconds": machine.decide_seconds,
        "per_tick_us": machine.decide_seconds / machine.ticks * 1e6,
        "three_million": machine.decide_seconds / machine.ticks * 7 * _DAY / 0.2,
    }


def measure(work: Work) -> dict[str, Any]:
    """Both; the shortest ticks are left out of a quick run."""
    ticks = (600.0,) if work.quick else (600.0, 60.0, 10.0)
    return {"thousand": thousand(work, 100 if work.quick else _ROLLOUTS), "week": work.map("seven days", week, [(t, 2.0) for t in ticks])}  # fmt: skip
