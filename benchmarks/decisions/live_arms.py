"""The same artifact on both arms, real hosts, real load: does latency tell them apart?

Each rollout goes through 1, 10 and 50 %. With the twin the product decides. "Without the twin" is
worked out afterwards from the counters of the very same rollouts: candidate against the other
ninety-odd per cent, whose host is warm and busy, by the same formula. There is no such setting.
"""

from __future__ import annotations

import math
import time
from typing import Any, Final

import msgspec

from benchmarks import artifacts
from benchmarks.decisions.delays import in_set
from benchmarks.openloop import Running
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap
from hotswap.core.evidence import Evidence, Stage
from hotswap.core.journal import record_of
from hotswap.core.rollout_views import JournalView
from hotswap.stats import latency, quantiles

WEIGHTS: Final = (1, 10, 50)
#: Requests a second: enough for a latency in each 50 ms at 1 % of either arm.
RATE: Final = 1_000.0
_STEP_SECONDS: Final = 10.0
_BEGIN_SECONDS: Final = 4.0


def body(hold: float) -> dict[str, Any]:
    """A ramp that ends by waiting for a person, who ends it."""
    steps: list[dict[str, Any]] = []
    for weight in WEIGHTS:
        steps += [{"weight": weight}, {"hold_seconds": hold}]
    return {
        "model": "bench", "version": "v2", "strategy": "canary", "force": True,
        "steps": [*steps, {"approval": True}], "bake_seconds": 0, "watch_seconds": 0,
    }  # fmt: skip


def cells(evidence: Evidence, *, twin: bool) -> list[latency.LatencyCell]:
    """What is compared at each stage: with stable's twin, or with what the rest of it served.

    Without the twin the coin is taken as the share that the arms' latencies have.
    """
    found = []
    for stage in evidence.stages:
        compared = stage.compared
        if compared is None:
            continue
        rho, arm = compared
        ours = stage.candidate.latency
        theirs = arm.latency
        if not twin and stage.twin_weight:
            theirs = stage.baseline.latency
            total = sum(ours.values()) + sum(theirs.values())
            rho = sum(ours.values()) / total if total else 0.0
        if 0.0 < rho < 1.0:
            found.append(latency.LatencyCell(rho, theirs, ours))
    return found


def judged(evidence: Evidence, *, twin: bool) -> float:
    """Log evidence that the candidate is slower; 0 before anything is compared."""
    if evidence.reference is None:
        return 0.0
    frozen = latency.freeze(evidence.reference.counts)
    return latency.rollback_evidence(cells(evidence, twin=twin), frozen)


def medians(stage: Stage) -> dict[str, float | None]:
    """p50 of each arm in milliseconds, None without latencies."""
    return {
        name: quantiles.quantile(counts, 0.5) / 1e6 if counts else None
        for name, counts in (
            ("baseline", stage.baseline.latency),
            ("twin", stage.twin.latency),
            ("candidate", stage.candidate.latency),
        )
    }


def wait(server: Hotswap, rollout: str, seconds: float) -> dict[str, Any]:
    """The rollout once it waits for a person or is over, or when the time is up."""
    until = time.monotonic() + seconds
    while True:
        view: dict[str, Any] = server.control("GET", f"/rollouts/{rollout}")
        waits = view["phase"] == "Paused" and view["reason"] == "approval"
        if view["final"] or waits or time.monotonic() > until:
            return view
        time.sleep(0.2)


def last_evidence(server: Hotswap, rollout: str) -> Evidence:
    """What the last entry of its journal knew."""
    entries = server.control("GET", f"/rollouts/{rollout}/journal")["journal"]
    views = msgspec.convert(entries, list[JournalView], strict=False)
    return record_of(views[-1]).before.evidence


def one(server: Hotswap, load: dict[str, Any], hold: float) -> dict[str, Any]:
    """One rollout under load, from its start to its end."""
    seconds = _BEGIN_SECONDS + len(WEIGHTS) * (hold + 1.5)
    running = Running(server.port, load["path"], load["body"], rate=load["rate"], seconds=seconds)
    started = server.control("POST", "/rollouts", body(hold))
    view = wait(server, started["id"], seconds)
    if not view["final"]:
        server.control("POST", f"/rollouts/{started['id']}/abort", {"why": "measured"})
    trace = running.result()
    evidence = last_evidence(server, started["id"])
    wait_end(server, started["id"])
    return {
        "phase": view["phase"],
        "reason": view["reason"],
        "message": view["message"],
        "with_twin": judged(evidence, twin=True),
        "without_twin": judged(evidence, twin=False),
        "arms": {str(stage.weight / 100): medians(stage) for stage in evidence.stages},
        "latencies": [sum(stage.candidate.latency.values()) for stage in evidence.stages],
        "failures": trace.failures,
        "requests": len(trace.due),
    }


def wait_end(server: Hotswap, rollout: str) -> None:
    """Until it is over."""
    for _ in range(300):
        if server.control("GET", f"/rollouts/{rollout}")["final"]:
            return
        time.sleep(0.1)
    raise TimeoutError(f"rollout {rollout} did not end")


def measure(options: Options) -> dict[str, Any]:
    """50 rollouts, one after the other."""
    count, hold = options.pick(50, 2), options.pick(_STEP_SECONDS, 4.0)
    models = artifacts.folder(WORK / "models-arms", {"bench": {"v1": "lr.skops", "v2": "lr.skops"}})
    server = Hotswap(models, name="arms", workers=1)
    served = server.served("default")
    load = {"path": served.path, "body": served.body, "rate": RATE}
    found = []
    with server.run():
        server.switch("v1")
        for number in range(count):
            seen = one(server, load, hold)
            found.append(seen)
            options.say(
                f"rollout {number + 1}: {seen['phase']} {seen['reason']}; latency evidence "
                f"10^{seen['with_twin'] / math.log(10):.1f} with the twin, "
                f"10^{seen['without_twin'] / math.log(10):.1f} without"
            )
    return concluded(found)


def concluded(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How many were rolled back, and how many would have been."""
    enough = in_set("latency")
    return {
        "rollouts": len(found),
        "rolled_back": sum(each["phase"] in ("RolledBack", "RollingBack") for each in found),
        "for_latency": sum(
            each["reason"] == "guardrail" and "latency" in each["message"] for each in found
        ),
        "without_twin": sum(each["without_twin"] >= enough for each in found),
        "failures": sum(each["failures"] for each in found),
        "requests": sum(each["requests"] for each in found),
        "each": found,
    }
