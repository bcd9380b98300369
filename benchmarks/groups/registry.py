"""Requests/s with one registered model and with a thousand."""

from __future__ import annotations

import shutil
import statistics
from typing import Any

import msgspec

from benchmarks import artifacts, wrk
from benchmarks.groups.shapes import server_view
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap
from benchmarks.paths import MODELS


def measure(options: Options) -> dict[str, Any]:
    """Two servers, measured in turns; the second knows 999 models more (registered, not loaded)."""
    count = options.pick(1000, 100)
    folder = artifacts.folder(WORK / "models-registry", {"bench": {"v1": "lr.skops"}})
    extra = WORK / "extra-registry"
    shutil.rmtree(extra, ignore_errors=True)
    version = extra / "v1"
    version.mkdir(parents=True)
    shutil.copyfile(MODELS / "lr.skops", version / "model.skops")
    few = Hotswap(folder, name="registry-1")
    many = Hotswap(folder, "--allow-root", str(extra), name=f"registry-{count}")
    found: dict[str, list[Any]] = {"1": [], str(count): []}
    with few.run(), many.run():
        for number in range(1, count):
            many.control(
                "POST",
                f"/models/other-{number}/versions",
                {"version": "v1", "uri": str(version), "in_place": True},
            )
        registered = len(listed(many))
        for number in range(options.pick(5, 2)):
            order = [("1", few), (str(count), many)]
            for name, server in order if number % 2 == 0 else order[::-1]:
                served = server_view(server, "v2", "/v2/models/bench/infer")
                seen = wrk.run(served.url, served.body, connections=32, seconds=options.seconds)
                found[name].append(msgspec.to_builtins(seen))
    rps = {name: statistics.median(each["rps"] for each in seen) for name, seen in found.items()}
    options.say(f"1 model {rps['1']:,.0f}/s, {registered} models {rps[str(count)]:,.0f}/s")
    return {
        "registered": registered,
        "rounds": found,
        "rps": rps,
        "ratio": rps[str(count)] / rps["1"],
    }


def listed(server: Hotswap) -> list[Any]:
    """The models that control shows, however it wraps them."""
    shown = server.control("GET", "/models")
    models: list[Any] = shown["models"] if isinstance(shown, dict) else shown
    return models
