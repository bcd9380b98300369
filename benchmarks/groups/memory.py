"""Memory that a loaded version does not share with others."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import Any

from benchmarks import artifacts, processes
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap
from benchmarks.paths import MODELS


def measure(options: Options) -> dict[str, Any]:
    """Load versions one by one; the processes that appear are theirs."""
    del options
    return {name: one_format(name) for name in ("skops", "onnx")}


def one_format(suffix: str) -> dict[str, Any]:
    """Private memory of each new host (its smaps_rollup) and what control shows, in MiB."""
    names = [f"v{n}" for n in range(1, 6)]
    artifact = f"lr.{suffix}"
    models = artifacts.folder(
        WORK / f"models-memory-{suffix}", {"bench": dict.fromkeys(names, artifact)}
    )
    server = Hotswap(models, name=f"memory-{suffix}")
    served = server.served("default", "v2_fp32" if suffix == "onnx" else "v2")
    seen = []
    with server.run():
        active = server.control("GET", "/models/bench")["active"]
        for name in (each for each in names if each != active):
            before = set(processes.children(server.pid))
            server.control("POST", f"/models/bench/versions/{name}/load")
            pinned = f"/v2/models/bench/versions/{name}/infer"
            for _ in range(20):
                processes.post(server.port, pinned, served.body.read_bytes())
            new = hosts(server, before)
            if not new:
                raise processes.ServerFailed(f"no process appeared for version {name}")
            seen.append(
                {
                    "processes": len(new),
                    "private_mib": sum(processes.private_bytes(pid) for pid in new) / 2**20,
                    "shown_mib": server.version(name)["memory_bytes"] / 2**20,
                }
            )
    size = (MODELS / artifact).stat().st_size / 2**20
    return {
        "versions": seen,
        "artifact_mib": size,
        "beyond_artifact_mib": statistics.median(each["private_mib"] for each in seen) - size,
    }


def hosts(server: Hotswap, before: set[int]) -> list[int]:
    """New processes of the tree that were forked and not executed: hosts, but no new nursery.

    What one program image forks has its auxiliary vector, random stack address included.
    """
    found = []
    images: set[bytes] = set()
    for pid in sorted(processes.children(server.pid)):
        with contextlib.suppress(OSError):
            image = Path(f"/proc/{pid}/auxv").read_bytes()
            if pid not in before and image in images:
                found.append(pid)
            images.add(image)
    return found
