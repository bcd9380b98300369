"""Switches under load, and how fast a cold version takes over."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from benchmarks import artifacts, wrk
from benchmarks.openloop import Running, Trace
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap
from benchmarks.served import Served

TOTAL = 200


def capacity(options: Options, served: Served) -> float:
    """Requests/s of a closed loop with 32 connections, measured just now."""
    seen = wrk.run(served.url, served.body, connections=32, seconds=options.pick(4, 2), warmup=2)
    return seen.rps


def measure(options: Options) -> dict[str, Any]:
    """200 switches between two warm versions at half the capacity, in pairs with idle windows."""
    pairs, seconds = options.pick(5, 2), options.pick(8.0, 4.0)
    switches = options.pick(TOTAL // 5, 20)
    models = artifacts.folder(
        WORK / "models-switching", {"bench": {"v1": "lr.skops", "v2": "lr2.skops"}}
    )
    server = Hotswap(models, name="switching")
    served = server.served("default")
    result: dict[str, Any] = {"pairs": []}
    with server.run():
        for version in ("v1", "v2", "v1"):
            server.switch(version)
        rate = 0.5 * capacity(options, served)
        result["rate"] = rate
        for number in range(pairs):
            found: dict[str, Any] = {}
            for kind in ("idle", "switching") if number % 2 == 0 else ("switching", "idle"):
                load = Running(server.port, served.path, served.body, rate=rate, seconds=seconds)
                done: list[dict[str, Any]] = []
                if kind == "switching":
                    done = alternate(server, load.start, seconds, switches)
                trace = load.result()
                found[kind] = trace.summary()
                if done:
                    found["switches"] = done
                    found["stale_answers"] = stale(trace, done)
            result["pairs"].append(found)
            options.say(
                f"pair {number + 1}: p99 idle {found['idle']['p99_ms']:.2f} ms, while switching "
                f"{found['switching']['p99_ms']:.2f} ms, {found['switching']['failures']} failed"
            )
    return result | conclude(result["pairs"])


def conclude(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is claimed of the pairs: medians, totals and ratios."""
    ratio = [each["switching"]["p99_ms"] / each["idle"]["p99_ms"] for each in pairs]
    flips = [s["flip_ms"] for each in pairs for s in each["switches"]]
    return {
        "switches": len(flips),
        "failed": sum(each["switching"]["failures"] + each["idle"]["failures"] for each in pairs),
        "stale_answers": sum(each["stale_answers"] for each in pairs),
        "p99_ratio": statistics.median(ratio),
        "p50_ratio": statistics.median(
            e["switching"]["p50_ms"] / e["idle"]["p50_ms"] for e in pairs
        ),
        "idle_p99_ms": statistics.median(each["idle"]["p99_ms"] for each in pairs),
        "switching_p99_ms": statistics.median(each["switching"]["p99_ms"] for each in pairs),
        "flip_p50_ms": float(np.median(flips)),
        "flip_p99_ms": float(np.quantile(flips, 0.99)),
        "flip_max_ms": max(flips),
    }


def alternate(server: Hotswap, start: float, seconds: float, count: int) -> list[dict[str, Any]]:
    """``count`` switches, evenly over the window; moments are on the monotonic clock."""
    active = server.control("GET", "/models/bench")["active"]
    done = []
    for k in range(count):
        time.sleep(max(0.0, start + (k + 0.5) * seconds / count - time.perf_counter()))
        active = "v2" if active == "v1" else "v1"
        begin = time.perf_counter()
        answer = server.switch(active)
        done.append(
            {
                "to": active,
                "begin": begin,
                "returned": time.perf_counter(),
                "flip_ms": answer["flip_ms"],
                "prepare_ms": answer["prepare_ms"],
            }
        )
    return done


def stale(trace: Trace, switches: list[dict[str, Any]]) -> int:
    """Requests sent after a switch returned (and before the next began) that the old one answered."""
    count = 0
    for this, following in zip(switches, [*switches[1:], None], strict=True):
        until = following["begin"] if following else np.inf
        sent = (trace.sent > this["returned"]) & (trace.done < until) & (trace.status == 200)
        right = trace.versions.index(this["to"]) if this["to"] in trace.versions else -1
        count += int((trace.version[sent] != right).sum())
    return count


def ready(options: Options) -> dict[str, Any]:
    """`switch` to a cold small version, and the first request that it answers.

    One keep-alive connection asks every 5 ms all the while, so that the first request of the new
    version is compared with requests of the old one that came at the same pace.
    """
    count = options.pick(12, 6)
    names = [f"v{n}" for n in range(1, count + 2)]
    models = artifacts.folder(WORK / "models-ready", {"bench": dict.fromkeys(names, "lr.skops")})
    server = Hotswap(models, name="ready")
    served = server.served("default")
    seen: list[dict[str, float]] = []
    with server.run():
        active = server.control("GET", "/models/bench")["active"]
        wrk.run(served.url, served.body, connections=4, seconds=1, warmup=1)
        for name in (each for each in names if each != active):
            load = Running(
                server.port, served.path, served.body, rate=200, seconds=2.0, connections=1
            )
            time.sleep(max(0.0, load.start + 1.2 - time.perf_counter()))
            begin = time.perf_counter()
            answer = server.switch(name)
            wall = (time.perf_counter() - begin) * 1e3
            first, steady = first_and_steady(load.result(), name, begin)
            seen.append(
                {
                    "wall_ms": wall,
                    "prepare_ms": answer["prepare_ms"],
                    "flip_ms": answer["flip_ms"],
                    "first_ms": first,
                    "steady_p50_ms": steady,
                }
            )
            options.say(
                f"switch to {name}: {wall:.0f} ms; first answer {first:.2f} ms, p50 {steady:.2f} ms"
            )
    return {
        "switches": seen,
        "ready_ms": statistics.median(each["wall_ms"] for each in seen),
        "first_ratio": statistics.median(e["first_ms"] / e["steady_p50_ms"] for e in seen),
        "first_ratio_worst": max(e["first_ms"] / e["steady_p50_ms"] for e in seen),
    }


def first_and_steady(trace: Trace, version: str, begin: float) -> tuple[float, float]:
    """Milliseconds of the first answer by ``version``, and the p50 of those sent before ``begin``."""
    took = (trace.done - trace.sent) * 1e3
    new = np.flatnonzero(trace.version == trace.versions.index(version))
    return float(took[new[0]]), float(np.median(took[trace.sent < begin]))
