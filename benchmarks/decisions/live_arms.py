"""The same artifact on both arms, real hosts, real load: does latency tell them apart?

Each rollout goes through 1, 10 and 50 %. With the twin the product decides. "Without the twin" is
worked out afterwards from the counters of the very same rollouts: candidate against the other
ninety-odd per cent, whose host is warm and busy, by the same formula. There is no such setting.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
#: Rollouts side by side, each of a model of its own, and requests a second to each.
MODELS: Final = 5
RATE: Final = 400.0
#: Seconds at each weight. At 1 % it takes the longest until there is something to compare.
_STEP_SECONDS: Final = (30.0, 10.0, 10.0)
_QUICK_SECONDS: Final = (4.0, 4.0, 4.0)
_BEGIN_SECONDS: Final = 4.0


def body(model: str, holds: tuple[float, ...]) -> dict[str, Any]:
    """A ramp that ends by waiting for a person, who ends it."""
    steps: list[dict[str, Any]] = []
    for weight, hold in zip(WEIGHTS, holds, strict=True):
        steps += [{"weight": weight}, {"hold_seconds": hold}]
    return {
        "model": model, "version": "v2", "strategy": "canary", "force": True,
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


def one(server: Hotswap, model: str, payload: Path, holds: tuple[float, ...]) -> dict[str, Any]:
    """One rollout under load, from its start to its end."""
    seconds = _BEGIN_SECONDS + sum(hold + 1.5 for hold in holds)
    running = Running(server.port, f"/v2/models/{model}/infer", payload, rate=RATE, seconds=seconds)
    started = server.control("POST", "/rollouts", body(model, holds))
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
    """50 rollouts, five at a time."""
    count, holds = options.pick(50, 2), options.pick(_STEP_SECONDS, _QUICK_SECONDS)
    names = [f"arms{number}" for number in range(min(MODELS, count))]
    kept = {name: {"v1": "lr.skops", "v2": "lr.skops"} for name in names}
    server = Hotswap(artifacts.folder(WORK / "models-arms", kept), name="arms", workers=1)
    payload = server.served("default").body
    found: list[dict[str, Any]] = []
    with server.run(), ThreadPoolExecutor(len(names)) as pool:
        for name in names:
            server.control("POST", f"/models/{name}/switch", {"version": "v1"})
        while len(found) < count:
            batch = list(pool.map(lambda name: one(server, name, payload, holds), names))
            for seen in batch:
                found.append(seen)
                options.say(
                    f"rollout {len(found)}: {seen['phase']} {seen['reason']}; latency evidence "
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
