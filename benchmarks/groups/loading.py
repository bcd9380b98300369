"""Loading a model that takes 2 s of processor time, beside traffic."""

from __future__ import annotations

import shutil
import statistics
import time
from typing import Any

from benchmarks import artifacts
from benchmarks.groups.switching import capacity
from benchmarks.openloop import Running
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap

LOAD_SECONDS = 2.0


def measure(options: Options) -> dict[str, Any]:
    """p99 of the requests that were due while a load ran, in pairs with idle windows."""
    pairs, seconds = options.pick(5, 2), 4.0
    models = artifacts.folder(WORK / "models-loading", {"bench": {"v1": "lr.skops"}})
    extra = WORK / "extra-loading"
    shutil.rmtree(extra, ignore_errors=True)
    server = Hotswap(models, "--trust-code", "--allow-root", str(extra), name="loading")
    served = server.served("default")
    artifacts.slow_version(extra / "slow", LOAD_SECONDS)
    found: list[dict[str, Any]] = []
    with server.run():
        server.control(
            "POST", "/models/slow/versions", {"version": "v1", "uri": str(extra / "slow")}
        )
        rate = 0.5 * capacity(options, served)
        for number in range(pairs):
            pair: dict[str, Any] = {}
            for kind in ("idle", "loading") if number % 2 == 0 else ("loading", "idle"):
                load = Running(server.port, served.path, served.body, rate=rate, seconds=seconds)
                begin, end = load.start + 0.5, load.start + 0.5 + LOAD_SECONDS
                if kind == "loading":
                    time.sleep(max(0.0, begin - time.perf_counter()))
                    begin = time.perf_counter()
                    server.control("POST", "/models/slow/versions/v1/load")
                    end = time.perf_counter()
                    pair["load_seconds"] = end - begin
                    server.control("POST", "/models/slow/versions/v1/unload")
                whole = load.result()
                pair[kind] = whole.between(begin, end).summary()
                pair[f"{kind}_failures"] = whole.failures
            found.append(pair)
            options.say(
                f"pair {number + 1}: p99 idle {pair['idle']['p99_ms']:.2f} ms, while loading "
                f"{pair['loading']['p99_ms']:.2f} ms (load took {pair['load_seconds']:.2f} s)"
            )
    return {
        "rate": rate,
        "pairs": found,
        "failed": sum(each["idle_failures"] + each["loading_failures"] for each in found),
        "p99_ratio": statistics.median(e["loading"]["p99_ms"] / e["idle"]["p99_ms"] for e in found),
        "p50_ratio": statistics.median(e["loading"]["p50_ms"] / e["idle"]["p50_ms"] for e in found),
        "idle_p99_ms": statistics.median(each["idle"]["p99_ms"] for each in found),
        "loading_p99_ms": statistics.median(each["loading"]["p99_ms"] for each in found),
        "max_ms": statistics.median(each["loading"]["max_ms"] for each in found),
    }
