"""What choosing a version, holding it and counting cost on one request."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import Options


def measure(options: Options) -> dict[str, Any]:
    """Microseconds of choose + lease + tally, without parsing, host and encoding."""
    rounds = asyncio.run(_rounds(options.pick(9, 5), options.pick(100_000, 20_000)))
    return {"microseconds": rounds, "median_us": statistics.median(rounds)}


async def _rounds(rounds: int, times: int) -> list[float]:
    from hotswap.core.routing import HostRef, RouteTable, VersionEntry
    from hotswap.core.signature import Signature, TensorSpec
    from hotswap.ipc.words import HEALTH_WORDS, MODELS, Epoch, Health, Words
    from hotswap.serving.link import Reply
    from hotswap.serving.plane import WorkerPlane

    reply = Reply({"predict": np.zeros(1, dtype=np.int64)}.items(), 0, 1, 1000, 1000)  # type: ignore[arg-type]

    class Answered(WorkerPlane):
        """The plane itself, but for the way to the host."""

        async def ask(self, *_: Any) -> Reply:
            return reply

    epoch = Epoch(Words.create("bench-epoch", MODELS))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tables", "tally"):
            (Path(folder) / name).mkdir()
        plane = Answered(
            runtime_dir=folder,
            slot=0,
            workers=1,
            queue_rows=4096,
            readiness="stable",
            epoch=epoch,
            health=Health(Words.create("bench-health", HEALTH_WORDS)),
            tally="bench",
            wall_ms=0,
            on_ack=lambda *_: None,
            on_drained=lambda *_: None,
            on_wanted=lambda *_: None,
        )
        entries = tuple(
            VersionEntry(name, "sklearn", "READY", hosts=(HostRef(name, name, 0),))
            for name in ("v1", "v2")
        )
        signature = Signature(
            (TensorSpec("x", "FP64", (-1, 30)),), (TensorSpec("predict", "INT64", (-1,)),)
        )
        epoch.commit(1, 1)
        plane.install(RouteTable("bench", 1, 1, "v2", signature, entries))
        inputs = {"x": np.zeros((1, 30))}
        found = []
        for _ in range(rounds):
            begin = time.perf_counter()
            for _ in range(times):
                lease = plane.lease("bench", None, None)
                try:
                    await lease.predict(inputs, ("predict",), 1, 0.0, "")
                finally:
                    lease.release()
            found.append((time.perf_counter() - begin) / times * 1e6)
        for route in plane.routes.values():
            for arm in route.arms.values():
                for link in arm.links:
                    link.close()
    return found
