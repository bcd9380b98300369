"""Memory over many swaps between versions of 100 MB."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks import artifacts, processes
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap
from benchmarks.processes import tree_bytes

MEGABYTES = 100


def measure(options: Options) -> dict[str, Any]:
    """Swap back and forth, each time with a load, and weigh the whole tree of processes.

    The previous version is kept for no time, so that each switch loads and each drain unloads.
    """
    cycles = options.pick(200, 6)
    models = artifacts.folder(WORK / "models-swaps", {})
    for seed, version in enumerate(("v1", "v2")):
        artifacts.big_onnx(models / "bench" / version / "model.onnx", MEGABYTES, seed)
    server = Hotswap(models, name="swaps")
    server.env["HOTSWAP_KEEP_WARM_SECONDS"] = "0"
    samples: list[dict[str, float]] = []
    waits: list[float] = []
    with server.run():
        active = server.control("GET", "/models/bench")["active"]
        request = json.loads(artifacts.body("v2_fp32"))
        del request["outputs"]
        body = json.dumps(request).encode()
        settle(server)
        for cycle in range(cycles + 1):
            if cycle % max(1, cycles // 20) == 0:
                settle(server)
                samples.append({"cycle": cycle, "mib": tree_bytes(server.pid) / 2**20})
                options.say(f"{cycle} swaps: {samples[-1]['mib']:.0f} MiB")
            if cycle == cycles:
                break
            active = "v2" if active == "v1" else "v1"
            begin = time.perf_counter()
            server.switch(active)
            waits.append(time.perf_counter() - begin)
            processes.post(server.port, "/v2/models/bench/infer", body)
    first = samples[0]["mib"]
    return {
        "cycles": cycles,
        "megabytes": MEGABYTES,
        "samples": samples,
        "switch_seconds": waits,
        "before_mib": first,
        "after_mib": samples[-1]["mib"],
        "growth": samples[-1]["mib"] / first - 1,
    }


def settle(server: Hotswap) -> None:
    """Until one version is resident: the one before has drained and its host has ended."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        versions = server.control("GET", "/models/bench")["versions"]
        if sum(each["instances"] > 0 for each in versions) == 1:
            break
        time.sleep(0.1)
    time.sleep(0.5)
